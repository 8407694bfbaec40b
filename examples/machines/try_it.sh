#!/bin/sh
# The tutorial across three machines, on one: a master and two workers, each in a network namespace of its own.
#
#     sudo sh examples/machines/try_it.sh            # PYTHON=/path/to/python with manyhands installed
#
#     first  192.0.2.2 ─────── 192.0.2.1  master  192.0.2.5 ─────── 192.0.2.6  second
#
# Needs Linux, root and iproute2. All of it happens in a network and mount namespace that ends with this script: nothing of
# the machine's own network is touched, and nothing stays.
set -eu

if [ "${1:-}" != inside ]; then
  [ "$(id -u)" = 0 ] || { echo "network namespaces need root: sudo sh $0" >&2; exit 2; }
  command -v ip >/dev/null || { echo "the command ip is missing: install iproute2" >&2; exit 2; }
  exec unshare --net --mount sh "$0" inside
fi

programs=$(cd "$(dirname "$0")/../tutorial" && pwd)
python=${PYTHON:-python3}
export MANYHANDS_AUTHKEY="a key for three machines that are none"
mount -t tmpfs none /run # ip notes its namespaces there

for machine in master first second; do
  ip netns add "$machine"
  ip -n "$machine" link set lo up
done
cable() { # WORKER ADDRESS_OF_MASTER ADDRESS_OF_WORKER
  ip link add "to-$1" netns master type veth peer name eth0 netns "$1"
  ip -n master address add "$2/30" dev "to-$1"
  ip -n "$1" address add "$3/30" dev eth0
  ip -n master link set "to-$1" up
  ip -n "$1" link set eth0 up
}
cable first 192.0.2.1 192.0.2.2
cable second 192.0.2.5 192.0.2.6

on() { # MACHINE PROGRAM ARGUMENTS…: run it there, and show whose line is whose
  machine=$1
  shift
  ip netns exec "$machine" "$python" -u "$programs/$@" 2>&1 | sed -u "s/^/$machine: /"
}
on first worker.py 192.0.2.1:5959 &
on second worker.py 192.0.2.5:5959 &
on master master.py :5959
wait
