package tree

import (
	"slices"

	"golang.org/x/sys/unix"
)

// cacheTag is the tag file that must begin with a signature, and that
// signature (bford.info/cachedir).
const (
	cacheTag       = "CACHEDIR.TAG"
	cacheSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

func (w *walk) excluded(n *node, name string, isDir bool) bool {
	if n.skips && w.set.skip[join(n.path, name)] {
		return true
	}
	return n.root.match.MatchIn(n.path, name, isDir)
}

func (w *walk) isTag(name string) bool { return slices.Contains(w.t.o.ExcludeIfPresent, name) }

// hasTag says whether one of the names in the directory fd is a tag file.
func (w *walk) hasTag(fd int, names []name) bool {
	for _, tag := range w.t.o.ExcludeIfPresent {
		if !slices.ContainsFunc(names, func(n name) bool { return n.s == tag }) {
			continue
		}
		if tag != cacheTag || hasSignature(fd) {
			return true
		}
	}
	return false
}

func hasSignature(dir int) bool {
	fd, err := unix.Openat(dir, cacheTag, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	b := make([]byte, len(cacheSignature))
	n, err := unix.Read(fd, b)
	return err == nil && string(b[:max(n, 0)]) == cacheSignature
}

// otherFS says why nothing below the directory n, open as fd, belongs to the
// tree: it is on another file system than it may be. Else it is empty.
func (w *walk) otherFS(n *node, fd int, st *unix.Statx_t) string {
	if w.t.o.OneFileSystem {
		if device(st) != device(&n.root.st) || st.Attributes&st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			return "another file system is mounted there"
		}
		return ""
	}
	if device(st) == n.above {
		return ""
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || !kernelsOwn(int64(fs.Type)) {
		return ""
	}
	return "one of the kernel's own file systems is mounted there"
}

// kernelsOwn says whether a file system of that type holds no files but views of
// the kernel: nobody's data, and reading them may have effects or never end.
func kernelsOwn(magic int64) bool {
	switch uint32(magic) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
		unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.PSTOREFS_MAGIC,
		unix.EFIVARFS_MAGIC, unix.BPF_FS_MAGIC, unix.BINFMTFS_MAGIC, unix.DEVPTS_SUPER_MAGIC, resctrlMagic,
		unix.NSFS_MAGIC, unix.AUTOFS_SUPER_MAGIC, configfsMagic, mqueueMagic, fusectlMagic, rpcPipefsMagic:
		return true
	}
	return false
}

// Magic numbers that x/sys/unix lacks (statfs(2), and the kernel's fs/fuse/control.c,
// ipc/mqueue.c, net/sunrpc/rpc_pipe.c).
const (
	resctrlMagic   = 0x7655821
	configfsMagic  = 0x62656570
	mqueueMagic    = 0x19800202
	fusectlMagic   = 0x65735543
	rpcPipefsMagic = 0x67596969
)
