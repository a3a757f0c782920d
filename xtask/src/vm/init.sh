#!/bin/busybox sh
# First process of the virtual machine, in the initial ram disk: makes the disk the root, since
# nothing can pivot_root(2) away from a ram disk, and goes on in there, with what the kernel's
# command line names: `cases=FILE`, or systemd where the disk has one.
export PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /sbin /disk
ln -s /bin/busybox /sbin/modprobe
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
# where the kernel's own modules lie: qemu's disk is on virtio
modprobe virtio_pci
modprobe virtio_blk
mount -t ext4 /dev/vda /disk || { echo "vm: no disk"; poweroff -f; }
cases=$(sed 's/.*cases=\([a-z]*\).*/\1/' /proc/cmdline)
mkdir -p /disk/proc /disk/sys /disk/dev /disk/run /disk/tmp /disk/etc /disk/var/lib /disk/cases
cp -a /cases/* /disk/cases/
if [ -e /disk/lib/systemd/systemd ]; then
    cp -a /bin/busybox /bin/bulkhead /bin/bulkhead-oci /disk/bin/
    cp -a /lib/modules /disk/lib/
    # it reads what its own depmod has written
    ln -sf /bin/busybox /disk/sbin/modprobe
    mv /disk/cases/cases.service /disk/etc/systemd/system/
    ln -s $cases.sh /disk/cases/these.sh
    umount /proc /sys /dev
    exec switch_root /disk /lib/systemd/systemd --unit=cases.service --show-status=no
fi
for directory in bin sbin lib etc tmp root; do
    [ ! -e /$directory ] || cp -a /$directory /disk/
done
mkdir -p /disk/var/run
[ ! -e /cases/$cases.early.sh ] || . /cases/$cases.early.sh
mount --move /dev /disk/dev
mount --move /proc /disk/proc
mount --move /sys /disk/sys
exec switch_root /disk /bin/busybox sh /cases/$cases.sh
