package extract

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/snapshot"
)

// target is what metadata is set on: an open file or directory, or else a name
// that is never followed.
type target struct {
	fd   int // not O_PATH; -1: dir and name
	dir  int
	name string
}

// path is for system calls that know no descriptors. Those used with it do not
// follow its last component.
func (t target) path() string { return fmt.Sprintf("/proc/self/fd/%d/%s", t.dir, t.name) }

func (t target) stat(st *unix.Stat_t) error {
	return retry(func() error {
		if t.fd >= 0 {
			return unix.Fstat(t.fd, st)
		}
		return unix.Fstatat(t.dir, t.name, st, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (t target) chown(uid, gid int) error {
	return retry(func() error {
		if t.fd >= 0 {
			return unix.Fchown(t.fd, uid, gid)
		}
		return unix.Fchownat(t.dir, t.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// chmod must not be called on symbolic links.
func (t target) chmod(mode uint32) error {
	if t.fd >= 0 {
		return retry(func() error { return unix.Fchmod(t.fd, mode) })
	}
	return chmodAt(t.dir, t.name, mode)
}

// chmodAt changes the mode of what is there and not a symbolic link.
func chmodAt(dir int, name string, mode uint32) error {
	err := retry(func() error { return unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW) })
	if err != unix.EOPNOTSUPP {
		return err
	}
	// Before Linux 6.6: hold it, look at it, and go through the descriptor.
	fd, err := retryInt(func() (int, error) {
		return unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return retry(func() error { return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode) })
}

func (t target) setMTime(m snapshot.Time) error {
	at, err := unix.TimeToTimespec(m.Time())
	if err != nil {
		return err
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, at}
	return retry(func() error {
		if t.fd < 0 {
			return unix.UtimesNanoAt(t.dir, t.name, ts, unix.AT_SYMLINK_NOFOLLOW)
		}
		err := unix.UtimesNanoAt(t.fd, "", ts, unix.AT_EMPTY_PATH)
		if err == unix.EINVAL || err == unix.ENOENT { // before Linux 5.8
			err = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", t.fd), ts, 0)
		}
		return err
	})
}

func (t target) listXattrs(buf []byte) (int, error) {
	if t.fd >= 0 {
		return unix.Flistxattr(t.fd, buf)
	}
	return unix.Llistxattr(t.path(), buf)
}

func (t target) getXattr(name string, buf []byte) (int, error) {
	if t.fd >= 0 {
		return unix.Fgetxattr(t.fd, name, buf)
	}
	return unix.Lgetxattr(t.path(), name, buf)
}

func (t target) setXattr(name, value string) error {
	if t.fd >= 0 {
		return unix.Fsetxattr(t.fd, name, []byte(value), 0)
	}
	return unix.Lsetxattr(t.path(), name, []byte(value), 0)
}

func (t target) removeXattr(name string) error {
	if t.fd >= 0 {
		return unix.Fremovexattr(t.fd, name)
	}
	return unix.Lremovexattr(t.path(), name)
}

// apply gives t the metadata of e, in the one order in which each step keeps
// what those before it did: changing the owner clears capabilities and the setuid bits,
// an ACL changes mode bits, and the mode ends a directory's being unfinished. An error is ErrMetadata unless it is Fatal.
func (r *Root) apply(t target, e *snapshot.Entry) error {
	var st unix.Stat_t
	if err := t.stat(&st); err != nil {
		return fail("stat", e, err)
	}
	var faults []error
	uidOK, gidOK, err := r.applyOwner(t, e, &st)
	if err != nil {
		faults = append(faults, fail("set the owner of", e, err))
	}
	aclOK, errs := r.applyXattrs(t, e)
	faults = append(faults, errs...)
	if int64(st.Mtim.Sec) != e.MTime.Sec || int32(st.Mtim.Nsec) != e.MTime.Nsec {
		if err := t.setMTime(e.MTime); err != nil {
			faults = append(faults, fail("set the time of", e, err))
		}
	}
	if e.Type != snapshot.Symlink {
		if err := r.applyMode(t, e, uidOK, gidOK, aclOK); err != nil {
			faults = append(faults, fail("set the mode of", e, err))
		}
	}
	for _, err := range faults {
		if Fatal(err) {
			return err
		}
	}
	if len(faults) > 0 {
		return &metadataError{errors.Join(faults...)}
	}
	return nil
}

// metadataError is ErrMetadata with what went wrong.
type metadataError struct{ err error }

func (m *metadataError) Error() string        { return strings.ReplaceAll(m.err.Error(), "\n", "; ") }
func (m *metadataError) Is(target error) bool { return target == ErrMetadata }
func (m *metadataError) Unwrap() error        { return m.err }

func (r *Root) applyOwner(t target, e *snapshot.Entry, st *unix.Stat_t) (uidOK, gidOK bool, err error) {
	uid, gid := r.owners.uid(e.User, e.UID), r.owners.gid(e.Group, e.GID)
	if int(st.Uid) == uid && int(st.Gid) == gid {
		return true, true, nil
	}
	err = t.chown(uid, gid)
	if err == nil {
		return true, true, nil
	}
	if err != unix.EPERM && err != unix.EINVAL && err != unix.EOPNOTSUPP {
		return false, false, err
	}
	// The owner may not be ours to give, but the group can be.
	why := err
	uidOK, gidOK = int(st.Uid) == uid, int(st.Gid) == gid
	if !gidOK && t.chown(-1, gid) == nil {
		gidOK = true
	}
	if !uidOK || !gidOK {
		r.warn("owners", e.Path, why)
	}
	return uidOK, gidOK, nil
}

func (r *Root) applyMode(t target, e *snapshot.Entry, uidOK, gidOK, aclOK bool) error {
	mode := e.Mode & 0o7777
	if e.Type != snapshot.Dir && !uidOK && mode&unix.S_ISUID != 0 || !gidOK && mode&unix.S_ISGID != 0 {
		// Under another owner these would give rights that nobody granted.
		r.warn("setuid and setgid bits of other owners", e.Path, unix.EPERM)
		if !uidOK {
			mode &^= unix.S_ISUID
		}
		if !gidOK {
			mode &^= unix.S_ISGID
		}
	}
	if !aclOK {
		mode = modeWithoutACL(mode, e.Xattrs)
	}
	var st unix.Stat_t
	if err := t.stat(&st); err != nil {
		return err
	}
	if st.Mode&0o7777 == mode {
		return nil
	}
	return t.chmod(mode)
}

const (
	aclAccess  = "system.posix_acl_access"
	capability = "security.capability"
)

// xattrListMax is the most that the kernel lists (XATTR_LIST_MAX), and the largest value.
const xattrListMax = 64 << 10

// applyXattrs sets e's extended attributes and removes those that came from
// elsewhere, such as the directory's default ACL.
func (r *Root) applyXattrs(t target, e *snapshot.Entry) (aclOK bool, faults []error) {
	buf := r.buffer()
	n, err := t.listXattrs(buf[:xattrListMax])
	if err != nil {
		n = 0 // nothing to be removed that we could
	}
	there := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	for _, name := range there {
		if name == "" || !removable(name) || slices.ContainsFunc(e.Xattrs, func(x snapshot.Xattr) bool { return x.Name == name }) {
			continue
		}
		if err := t.removeXattr(name); err != nil && err != unix.ENODATA && !unable(err) {
			faults = append(faults, fail("remove attribute "+name+" of", e, err))
		}
	}
	aclOK = true
	for _, x := range e.Xattrs {
		if slices.Contains(there, x.Name) {
			if n, err := t.getXattr(x.Name, buf[:xattrListMax]); err == nil && string(buf[:n]) == x.Value {
				continue
			}
		}
		err := retry(func() error { return t.setXattr(x.Name, x.Value) })
		if err == nil {
			continue
		}
		if x.Name == aclAccess {
			aclOK = false
		}
		if unable(err) {
			r.warn(xattrKind(x.Name), e.Path, err)
			continue
		}
		faults = append(faults, &metadataError{fail("set attribute "+x.Name+" of", e, err)})
	}
	return aclOK, faults
}

// removable attributes are those that a user or a directory's defaults put
// there; the rest belongs to the system (labels and the like).
func removable(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") ||
		strings.HasPrefix(name, "system.posix_acl_") || name == capability
}

// unable errors say that this user or file system cannot, not that something went wrong.
func unable(err error) bool {
	return err == unix.EPERM || err == unix.EACCES || err == unix.EOPNOTSUPP || err == unix.ENOSYS
}

func xattrKind(name string) string {
	switch {
	case strings.HasPrefix(name, "system.posix_acl_"):
		return "ACLs"
	case name == capability:
		return "capabilities"
	}
	space, _, _ := strings.Cut(name, ".")
	switch space {
	case "user", "trusted", "security", "system":
		return space + " attributes"
	}
	return "other attributes"
}

// modeWithoutACL is the mode for a file whose ACL could not be set. The group
// bits of a file with an ACL are its mask; without the ACL they would be the
// group's rights, so they become what the ACL gives the group.
func modeWithoutACL(mode uint32, xattrs []snapshot.Xattr) uint32 {
	const (
		version  = 2
		groupObj = 0x04
		mask     = 0x10
	)
	for _, x := range xattrs {
		if x.Name != aclAccess || len(x.Value) < 4 || binary.LittleEndian.Uint32([]byte(x.Value)) != version {
			continue
		}
		group, limit := uint32(0), uint32(7)
		for b := []byte(x.Value[4:]); len(b) >= 8; b = b[8:] {
			perm := uint32(binary.LittleEndian.Uint16(b[2:])) & 7
			switch binary.LittleEndian.Uint16(b) {
			case groupObj:
				group = perm
			case mask:
				limit = perm
			}
		}
		return mode&^0o070 | mode&((group&limit)<<3)
	}
	return mode
}

// buffer is scratch space of 1 MiB, valid until the next call of a method.
func (r *Root) buffer() []byte {
	if r.buf == nil {
		r.buf = make([]byte, 1<<20)
	}
	return r.buf
}
