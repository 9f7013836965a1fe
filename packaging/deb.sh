#!/bin/sh
# Makes a Debian package of an installed tree: packaging/deb.sh STAGE VERSION OUT.
# STAGE is what "make install DESTDIR=STAGE PREFIX=/usr" has filled; it gets the
# package's own files too. Needs dpkg-deb and gzip.
set -eu
stage=$1 version=$2 out=$3

# A Debian version begins with a digit and has no hyphen of its own here.
case $version in
v[0-9]*.*) version=${version#v} ;;
[0-9]*.*) ;;
*) version=0~git$(git log -1 --format=%cd --date=format:%Y%m%d 2>/dev/null || echo 0).$version ;; # no release: a commit
esac
version=$(printf %s "$version" | tr -- - + | tr -cd 'A-Za-z0-9.+~')

firn=$stage/usr/bin/firn
for where in system user; do
	dir=$stage/usr/lib/systemd/$where
	mkdir -p "$dir"
	for unit in service timer; do
		"$firn" --config= schedule show --$where --program /usr/bin/firn --unit $unit | sed '/^# Written by /d' >"$dir/firn-run.$unit"
	done
done

doc=$stage/usr/share/doc/firn
mkdir -p "$doc"
cp README.md "$doc/"
cp -r docs/terms.md docs/adr docs/coming-from docs/design docs/howto docs/reference docs/tutorial "$doc/" # they point to each other
cat >"$doc/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: firn

Files: *
Copyright: the authors of Firn
License: Apache-2.0
 On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.
END
find "$stage/usr/share/man" -name '*.1' -exec gzip -9n {} +
find "$stage" -type d -exec chmod 755 {} +
find "$stage/usr/share" "$stage/usr/lib/systemd" -type f -exec chmod 644 {} +

mkdir -p "$stage/DEBIAN"
cat >"$stage/DEBIAN/control" <<END
Package: firn
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: the authors of Firn <firn@localhost>
Section: admin
Priority: optional
Installed-Size: $(du -sk "$stage/usr" | cut -f1)
Recommends: ca-certificates
Suggests: lbzip2, gnupg, age, zstd, btrfs-progs, git-annex
Homepage: https://github.com/firn-backup/firn
Description: backup to cold storage, and restore from it
 Firn backs up directories, ZFS and btrfs snapshots and any program's output to
 cold storage (S3 Glacier classes, Amazon Glacier vaults, directories) and gets
 them back. What it stores are standard streams: tar, compressed by zstd,
 encrypted by age.
END
# The units are there and switched off: systemctl enable --now firn-run.timer.
for script in postinst postrm; do
	cat >"$stage/DEBIAN/$script" <<'END'
#!/bin/sh
set -e
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
END
	chmod 755 "$stage/DEBIAN/$script"
done
cat >"$stage/DEBIAN/prerm" <<'END'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl disable --now firn-run.timer || true
fi
END
chmod 755 "$stage/DEBIAN/prerm"

mkdir -p "$out"
dpkg-deb --root-owner-group --build "$stage" "$out/firn_${version}_$(dpkg --print-architecture).deb"
