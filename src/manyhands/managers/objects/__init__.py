"""Objects that live in the master and are used from elsewhere."""
