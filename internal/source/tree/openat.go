package tree

import (
	"strings"

	"golang.org/x/sys/unix"
)

// opener opens what lies below a directory without ever following a symbolic
// link, whatever is swapped in meanwhile.
type opener struct {
	beneath bool // the kernel has openat2 (5.6) and lets us use it
}

func newOpener() opener {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return opener{}
	}
	unix.Close(fd)
	return opener{beneath: true}
}

// maxPath is how long a path one system call takes: PATH_MAX with its NUL, less
// a reserve.
const maxPath = 4000

// open opens rel below dir, which may be of any length; the empty rel is dir
// itself. Where the kernel allows it, reading will leave no trace in access times.
func (o opener) open(dir int, rel string, flags int) (int, error) {
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	if rel == "" {
		rel = "."
	}
	at := dir
	for {
		cut := o.cut(rel)
		if cut == len(rel) {
			break
		}
		next, err := o.step(at, rel[:cut], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		if at != dir {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at, rel = next, rel[cut+1:]
	}
	if at != dir {
		defer unix.Close(at)
	}
	if flags&unix.O_PATH == 0 {
		fd, err := o.step(at, rel, flags|unix.O_NOATIME)
		if err != unix.EPERM { // O_NOATIME is for the owner and root only
			return fd, err
		}
	}
	return o.step(at, rel, flags)
}

// cut is how much of rel the next step takes: all of it, or up to a slash.
func (o opener) cut(rel string) int {
	if !o.beneath {
		if i := strings.IndexByte(rel, '/'); i >= 0 {
			return i
		}
		return len(rel)
	}
	if len(rel) <= maxPath {
		return len(rel)
	}
	return strings.LastIndexByte(rel[:maxPath], '/')
}

func (o opener) step(dir int, rel string, flags int) (fd int, err error) {
	// EAGAIN: openat2 saw a rename and cannot tell whether that matters.
	for tries := 0; tries < 100; tries++ {
		if o.beneath {
			fd, err = unix.Openat2(dir, rel, &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		} else {
			fd, err = unix.Openat(dir, rel, flags, 0)
		}
		if err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}
