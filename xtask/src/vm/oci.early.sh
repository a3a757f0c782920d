# In the initial ram disk, whose mount nothing pivots away from.
. /cases/common.sh
. /cases/bundle.sh
global="--cgroup-manager disabled"
inside "oci in a ram disk, with pivot_root" "refused" "echo pivoted" | sed "s/FAILED: wanted 'refused', not '.*--no-pivot.*'/ok/"
options=--no-pivot
inside "oci in a ram disk, --no-pivot" "box / 1" 'echo $(hostname) $(ls -d /rootfs 2>/dev/null)/ $$'
