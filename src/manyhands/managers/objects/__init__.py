"""What a master serves that is no queue: the table of objects, the threads that call them, the locks held through them."""

from manyhands.managers.objects.table import Made, Objects

__all__ = ["Made", "Objects"]
