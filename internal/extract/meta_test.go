package extract

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/snapshot"
)

func TestOwnersAndAttributes(t *testing.T) {
	mustrun.Root(t)
	mustrun.Tool(t, "setfacl", "getfacl", "getfattr", "setcap")
	variants(t, func(t *testing.T, o Options) {
		tmp := t.TempDir()
		src := tmp + "/src"
		must(t, os.WriteFile(src, []byte("x"), 0o750))
		run(t, "setfattr", "-n", "user.binary", "-v", "0x00ff", src)
		run(t, "setfattr", "-n", "user.empty", src)
		run(t, "setfattr", "-n", "trusted.t", "-v", "t", src)
		run(t, "setfacl", "-m", "u:1234:rwx,g::---", src)
		must(t, os.Chown(src, 1234567, 7654321))
		run(t, "setcap", "cap_net_raw+ep", src)
		root := tmp + "/root"
		must(t, os.Mkdir(root, 0o755))
		run(t, "setfacl", "-d", "-m", "u:4321:rwx", root) // must not show in what is restored
		r := open(t, root, o)
		e := file("dst", "x")
		e.UID, e.GID, e.Mode = 1234567, 7654321, stat(t, src).Mode&0o7777
		e.Xattrs = xattrsOf(t, src)
		if len(e.Xattrs) != 5 {
			t.Fatalf("the source has %d attributes", len(e.Xattrs))
		}
		must(t, put(r, e, "x"))
		plain := file("plain", "x")
		plain.User, plain.Group = "daemon", "no such group"
		plain.UID, plain.GID, plain.Mode = 77, 78, 0o4755
		must(t, put(r, plain, "x"))
		link := mine("link", snapshot.Symlink, 0o777)
		link.Link, link.UID, link.GID = "/etc/passwd", 5, 6
		link.Xattrs = []snapshot.Xattr{{Name: "trusted.l", Value: "v"}}
		must(t, r.Symlink(link))
		dev := mine("dev", snapshot.CharDev, 0o640)
		dev.Major, dev.Minor, dev.UID = 1, 3, 9
		dev.Xattrs = []snapshot.Xattr{{Name: "trusted.d", Value: "v"}}
		must(t, r.Device(dev))
		d := mine("d", snapshot.Dir, 0o755)
		d.UID = 10
		must(t, r.Mkdir(d))
		must(t, r.FinishDir(d))

		for path, e := range map[string]*snapshot.Entry{"dst": e, "plain": plain, "link": link, "dev": dev, "d": d} {
			st := stat(t, root+"/"+path)
			uid := e.UID
			if path == "plain" {
				uid = 1 // daemon's here
			}
			if st.Uid != uid || st.Gid != e.GID || st.Mode&0o7777 != e.Mode {
				t.Errorf("%s: %d:%d %o", path, st.Uid, st.Gid, st.Mode)
			}
			if got, want := fmt.Sprintf("%q", xattrsOf(t, root+"/"+path)), fmt.Sprintf("%q", e.Xattrs); got != want {
				t.Errorf("%s: attributes\n%s, want\n%s", path, got, want)
			}
		}
		if st := stat(t, root+"/dev"); st.Rdev != unix.Mkdev(1, 3) {
			t.Errorf("device %x", st.Rdev)
		}
		if st := stat(t, "/etc/passwd"); st.Uid != 0 {
			t.Fatal("a link was followed")
		}
		if s, _ := r.Existing(dev); s != Same {
			t.Error("the device is not the same")
		}
		if w := r.Warnings(); len(w) > 0 {
			t.Errorf("warnings: %v", w)
		}
		o.NumericOwner = true
		r = open(t, root, o)
		must(t, r.Again(plain))
		if st := stat(t, root+"/plain"); st.Uid != 77 {
			t.Errorf("numeric owner is %d", st.Uid)
		}
		// Existing things get exactly the entry's attributes.
		e.Xattrs = e.Xattrs[:1]
		must(t, r.Again(e))
		if got := xattrsOf(t, root+"/dst"); len(got) != 1 {
			t.Errorf("attributes left: %q", got)
		}
	})
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func xattrsOf(t *testing.T, path string) []snapshot.Xattr {
	t.Helper()
	buf := make([]byte, 65536)
	n, err := unix.Llistxattr(path, buf)
	must(t, err)
	var all []snapshot.Xattr
	for _, name := range strings.Split(strings.Trim(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		v := make([]byte, 65536)
		n, err := unix.Lgetxattr(path, name, v)
		must(t, err)
		all = append(all, snapshot.Xattr{Name: name, Value: string(v[:n])})
	}
	for i := range all {
		for j := i; j > 0 && all[j].Name < all[j-1].Name; j-- {
			all[j], all[j-1] = all[j-1], all[j]
		}
	}
	return all
}

func TestModeWithoutACL(t *testing.T) {
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xd2\x04\x00\x00" +
		"\x04\x00\x01\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	if got := modeWithoutACL(0o2770, []snapshot.Xattr{{Name: aclAccess, Value: acl}}); got != 0o2710 {
		t.Errorf("mode %o", got)
	}
	if got := modeWithoutACL(0o770, []snapshot.Xattr{{Name: aclAccess, Value: "junk"}}); got != 0o770 {
		t.Errorf("mode %o", got)
	}
}

func asNobody(t *testing.T, fn func()) {
	mustrun.Root(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		var err error
		defer func() { done <- err }()
		for _, c := range [][4]uintptr{
			{syscall.SYS_SETGROUPS, 0, 0, 0},
			{syscall.SYS_SETRESGID, 65534, 65534, 65534},
			{syscall.SYS_SETRESUID, 65534, 65534, 65534},
		} {
			if _, _, e := syscall.RawSyscall(c[0], c[1], c[2], c[3]); e != 0 {
				err = e
				return
			}
		}
		fn()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestNotRoot(t *testing.T) {
	mustrun.Root(t)
	variants(t, func(t *testing.T, o Options) {
		root := t.TempDir()
		must(t, os.Chown(root, 65534, 65534))
		for d := filepath.Dir(root); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			must(t, os.Chmod(d, 0o755))
		}
		asNobody(t, func() {
			told := 0
			o.Warn = func(Warning) { told++ }
			for range 2 { // the second time over what the first one left
				r, err := Open(root, o)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				ro := mine("ro", snapshot.Dir, 0o555)
				ro.UID, ro.GID = 0, 0
				check(t, r.Mkdir(ro))
				for i := range 3 {
					f := file(fmt.Sprintf("ro/setuid%d", i), "x")
					f.UID, f.GID, f.Mode = 0, 0, 0o6755
					f.Xattrs = []snapshot.Xattr{{Name: "trusted.x", Value: "x"}, {Name: "user.y", Value: "y"}}
					check(t, put(r, f, "x"))
					d := mine(fmt.Sprintf("ro/dev%d", i), snapshot.CharDev, 0o600)
					d.Major, d.Minor = 1, 3
					if err := r.Device(d); !errors.Is(err, ErrUnsupported) {
						t.Errorf("device: %v", err)
					}
				}
				secret := file("ro/secret", "x")
				secret.UID, secret.GID, secret.Mode = 65534, 65534, 0
				check(t, put(r, secret, "x"))
				if s, err := r.Existing(secret); s != Same || err != nil {
					t.Errorf("unreadable file: %v, %v", s, err)
				}
				check(t, r.Again(secret))
				if s, _ := r.Existing(file("ro/secret", "y")); s != Differs {
					t.Errorf("unreadable file: %v", s)
				}
				check(t, r.FinishDir(ro))
				if len(r.Warnings()) != 4 || r.Warnings()[0].Count < 3 {
					t.Errorf("warnings: %v", r.Warnings())
				}
			}
			if told != 8 {
				t.Errorf("told %d times", told)
			}
		})
		if st := stat(t, root+"/ro/setuid1"); st.Mode&0o7777 != 0o755 || st.Uid != 65534 {
			t.Errorf("mode %o", st.Mode)
		}
		if st := stat(t, root+"/ro/secret"); st.Mode&0o7777 != 0 {
			t.Errorf("mode %o", st.Mode)
		}
		if st := stat(t, root+"/ro"); st.Mode&0o7777 != 0o555 {
			t.Errorf("mode %o", st.Mode)
		}
		if _, err := os.Lstat(root + "/ro/dev0"); err == nil {
			t.Error("a device was made")
		}
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestFullAndReadOnly(t *testing.T) {
	mustrun.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("firn", dir, "tmpfs", 0, "size=1m"); err != nil {
		mustrun.Skip(t, "cannot mount: "+err.Error())
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	r, err := Open(dir, Options{})
	must(t, err)
	e := file("big", strings.Repeat("x", 2<<20))
	err = put(r, e, strings.Repeat("x", 2<<20))
	if !errors.Is(err, unix.ENOSPC) || !Fatal(err) {
		t.Errorf("full disk: %v", err)
	}
	wantNothingElse(t, dir)
	must(t, put(r, file("small", "x"), "x"))
	r.Close()
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if _, err := Open(dir, Options{}); !errors.Is(err, unix.EROFS) || !Fatal(err) {
		t.Errorf("read-only: %v", err)
	}
	if _, err := Open(dir+"/new", Options{}); !errors.Is(err, unix.EROFS) {
		t.Errorf("read-only: %v", err)
	}
}
