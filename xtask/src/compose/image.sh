# image.sh ROOT SERVICES: makes the two images' archives below ROOT/images: `busybox`, and `services` of the Debian packages
# that lie unpacked at SERVICES.
set -e
root=$1 services=$2
mkdir -p "$root/images"

users() {
    mkdir -p "$1/etc" "$1/tmp" "$1/root" "$1/data"
    chmod 1777 "$1/tmp" "$1/data"
    cat > "$1/etc/passwd" <<PASSWD
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/:/bin/sh
postgres:x:70:70:postgres:/:/bin/sh
guest:x:1000:1000:guest:/:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh
PASSWD
    cat > "$1/etc/group" <<GROUP
root:x:0:
www-data:x:33:
postgres:x:70:
guest:x:1000:
audio:x:29:
nogroup:x:65534:
GROUP
}

busybox=$root.busybox
rm -rf "$busybox"
mkdir -p "$busybox/bin" "$busybox/proc" "$busybox/sys" "$busybox/dev"
cp "$root/usr/bin/busybox" "$busybox/bin/"
for applet in $("$root/usr/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$busybox/bin/$applet"
done
users "$busybox"
tar -C "$busybox" -c . > "$root/images/busybox.tar"
rm -rf "$busybox"

users "$services"
# what nobody reads here, and a compiler that the database does without
rm -rf "$services"/usr/share/doc "$services"/usr/share/man "$services"/usr/share/locale "$services"/usr/share/i18n \
    "$services"/usr/lib/x86_64-linux-gnu/libLLVM* "$services"/usr/lib/llvm* "$services"/usr/lib/postgresql/*/lib/bitcode \
    "$services"/usr/lib/x86_64-linux-gnu/gconv "$services"/usr/lib/python3*/test "$services"/var/cache/apt \
    "$services"/var/lib/apt
ln -sf "$(basename "$services"/usr/lib/postgresql/*)" "$services/usr/lib/postgresql/current"
# without links that maintainers' scripts would make
ln -sf busybox "$services/usr/bin/awk"
tar -C "$services" -c . > "$root/images/services.tar"
