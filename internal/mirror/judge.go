package mirror

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

// fewFiles is up to how many files a directory below the set's may lose all of them: that happens. The set's own
// directory may not.
const fewFiles = 10

// tally counts the files that are stored of a directory, those below it included.
type tally struct {
	known, gone int64
	unseen      int64 // of those that are gone: known by their archives only
}

// count counts a stored file in all directories that it lies in.
func (r *run) count(i catalog.Item, gone bool) {
	for p := i.Path; ; {
		p = path.Dir(p)
		if p == "." || p == "/" {
			p = ""
		}
		t := r.dirs[p]
		if t == nil {
			t = &tally{}
			r.dirs[p] = t
		}
		t.known++
		if gone {
			t.gone++
			if i.Bare {
				t.unseen++
			}
		}
		if p == "" {
			return
		}
	}
}

// judge decides which of the missing files are gone.
func (r *run) judge(ctx context.Context) error {
	if top := r.dirs[""]; top != nil && r.res.Files == 0 && top.known > 0 && len(r.blind) == 0 && !r.o.AllowShrunk {
		return failure.Errorf(failure.Failed, "%s: %w: %s stored of it, and it has none", r.o.Dir, ErrEmptied, units.Count(top.known, "file"))
	}
	if len(r.gone)+len(r.hidden) > 0 && !r.o.AllowShrunk {
		r.withhold()
	}
	for _, c := range r.gone {
		if !c.lost {
			r.res.Delete = append(r.res.Delete, c)
		}
	}
	changed := map[string]bool{}
	for _, c := range r.res.Upload {
		if c.Kind == Changed {
			changed[c.Path] = true
		}
	}
	err := r.stored(ctx, false, func(i catalog.Item) error {
		if changed[i.Path] {
			r.res.Delete = append(r.res.Delete, r.deletion(Old, i))
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = r.stored(ctx, true, func(i catalog.Item) error {
		r.res.Delete = append(r.res.Delete, r.deletion(Old, i))
		return nil
	})
	slices.SortStableFunc(r.res.Delete, func(a, b Change) int { return snapshot.ComparePaths(a.Path, b.Path) })
	return err
}

// deletion is what becomes of an archive that is not needed any more.
func (r *run) deletion(k Kind, i catalog.Item) Change {
	c := Change{Kind: k, Path: i.Path, Size: i.Plain, Archive: i.Archive.Archive}
	days := 0
	if r.o.Items.Store != nil {
		days = r.o.Items.Store.Traits().KeptDays(r.o.Early)
	}
	if due := i.Stored.Add(time.Duration(days) * 24 * time.Hour); r.o.Items.Now().Before(due) {
		c.Due = due
	}
	return c
}

// withhold takes back what is not to be believed: files of a file system that is not mounted, and most of what a directory had.
func (r *run) withhold() {
	why := map[string]Withheld{}
	for _, dir := range slices.Sorted(maps.Keys(r.dirs)) {
		t := r.dirs[dir]
		// Whether a file that the catalog knows by its archive only lay on something that is not mounted is not known either.
		unseen := t.unseen > 0 && t.gone == t.known
		empty := t.gone == t.known && r.mountPoint(dir)
		if t.gone*2 <= t.known || dir != "" && t.known < fewFiles && !unseen && !empty {
			continue
		}
		w := Withheld{Dir: dir, Files: t.gone, Known: t.known, Reason: "more than half of its files are not there"}
		if _, there := r.bands[dir]; !there && dir != "" {
			w.Reason = "it is not there"
		} else if empty {
			w.Reason = "what is mounted there has none of its files"
		} else if unseen {
			w.Reason = "none of its files is there, and they were not seen here before"
		}
		why[dir] = w
	}
	kept := r.gone[:0]
	unmounted := map[string]*Withheld{}
	asleep := func(c Change) bool {
		dir, reason := r.elsewhere(c)
		if reason == "" {
			return false
		}
		w := unmounted[dir]
		if w == nil {
			w = &Withheld{Dir: dir, Reason: reason}
			if t := r.dirs[dir]; t != nil {
				w.Known = t.known
			}
			unmounted[dir] = w
		}
		w.Files++
		return true
	}
	for _, c := range r.hidden {
		asleep(c)
	}
	used := map[string]bool{}
	for _, c := range r.gone {
		if dir, is := r.within(why, c.Path); is {
			used[dir] = true
			continue
		}
		if asleep(c) {
			continue
		}
		kept = append(kept, c)
	}
	r.gone = kept
	for _, dir := range slices.Sorted(maps.Keys(used)) {
		r.res.Withheld = append(r.res.Withheld, why[dir])
	}
	for _, dir := range slices.Sorted(maps.Keys(unmounted)) {
		r.res.Withheld = append(r.res.Withheld, *unmounted[dir])
	}
}

// within finds the outermost directory of those that p lies in.
func (r *run) within(dirs map[string]Withheld, p string) (dir string, ok bool) {
	if _, ok := dirs[""]; ok {
		return "", true
	}
	for k := 0; ; {
		n := strings.IndexByte(p[k:], '/')
		if n < 0 {
			return "", false
		}
		k += n
		if _, ok := dirs[p[:k]]; ok {
			return p[:k], true
		}
		k++
	}
}

// nearest is the innermost directory around p that is there, and where that is.
func (r *run) nearest(p string) (string, place) {
	for p != "" {
		p = path.Dir(p)
		if p == "." || p == "/" {
			p = ""
		}
		if dev, ok := r.bands[p]; ok {
			return p, dev
		}
	}
	return "", r.device
}

// unmounted says whether what a missing file lay on is not mounted, and the innermost directory around it that is there.
func (r *run) unmounted(c Change) (string, bool) {
	dir, at := r.nearest(c.Path)
	if c.mount == "" {
		return dir, at == r.device
	}
	here, there := r.bands[c.mount]
	_, above := r.nearest(c.mount)
	return dir, !there || here == above
}

// elsewhere says why what a missing file lay on is not what is there now, and the innermost directory around it that is there. No reason: it is
// what is there, or that is not known.
func (r *run) elsewhere(c Change) (dir, reason string) {
	dir, not := r.unmounted(c)
	switch {
	case not && c.mounted:
		return dir, "the file system that its files were on is not mounted"
	case c.bare, c.mounted && c.mount == "", r.mount(c.Path) == c.mount:
		return dir, ""
	}
	return dir, "something is mounted over what its files were on"
}

// mountPoint says whether something is mounted at a directory below the set's.
func (r *run) mountPoint(dir string) bool {
	here, there := r.bands[dir]
	_, above := r.nearest(dir)
	return there && dir != "" && here != above
}

// place is what a directory lies on: a device, and the mount, by which a directory of the same device that is mounted elsewhere is told from
// the one that it hides. Systems that do not tell of mounts (Linux before 5.8) have the device only.
type place struct{ device, mount uint64 }

// placeOf finds where a directory lies; where the system cannot tell (its path may be too long) it lies where the directory around it does, if
// that is on the same device.
func placeOf(dir string, device uint64, flags int, above place) place {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, flags|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	switch {
	case err == nil && st.Mask&unix.STATX_MNT_ID != 0:
		return place{device, st.Mnt_id}
	case device == above.device:
		return above
	}
	return place{device: device}
}

// ErrEmptied says that there is nothing where there was something.
var ErrEmptied = errors.New("it is empty now")
