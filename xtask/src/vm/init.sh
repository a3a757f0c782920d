#!/bin/busybox sh
# First process of the virtual machine, in the initial ram disk: makes the disk the root, since
# nothing can pivot_root(2) away from a ram disk, and goes on in there.
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
for directory in bin sbin lib etc tmp root cases.sh busybox.tar; do
    [ ! -e /$directory ] || cp -a /$directory /disk/
done
mkdir -p /disk/proc /disk/sys /disk/dev /disk/run /disk/tmp /disk/etc /disk/var/lib /disk/var/run
mount --move /dev /disk/dev
mount --move /proc /disk/proc
mount --move /sys /disk/sys
exec switch_root /disk /bin/busybox sh /cases.sh
