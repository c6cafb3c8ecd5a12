#!/bin/sh
# A compute node: takes the head's key, and is done when the head knows it as one that works.
set -eu
. /usr/local/lib/vws-slurm.sh

need slurmd slurmd slurm-client munge
take_name
folders
install -m 0400 -o munge -g munge "$VWS_CONTEXT/values/munge-key" /etc/munge/munge.key
configure
restart munge
restart slurmd
until_true 120 works
echo "slurmd works"
