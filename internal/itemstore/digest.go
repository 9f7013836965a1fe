package itemstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/source"
)

// settled is how long ago something must have been changed, when it is read, for its times to tell of the next
// change (docs/adr/0083).
const settled = 50 * time.Millisecond

// FileState is a hash of the metadata by which a file is known to be unchanged. Zero: its times are too young to tell.
func FileState(e *snapshot.Entry, read time.Time) [32]byte {
	if e.CTime.Time().Add(settled).After(read) && !e.CTime.Time().After(read.Add(time.Minute)) {
		return [32]byte{}
	}
	h := sha256.New()
	hashNumbers(h, e.Size, e.MTime.Sec, int64(e.MTime.Nsec), e.CTime.Sec, int64(e.CTime.Nsec), int64(e.Ino))
	return [32]byte(h.Sum(nil))
}

func hashNumbers(h hash.Hash, numbers ...int64) {
	var b [8]byte
	for _, n := range numbers {
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
}

func hashText(h hash.Hash, s string) {
	hashNumbers(h, int64(len(s)))
	io.WriteString(h, s)
}

// Measure is what is known of a directory at one look. What is inside counts: names, types, sizes,
// permissions, owners, extended attributes, contents; never the times of directories.
type Measure struct {
	State   [32]byte // times, inodes, the attributes of directories and Shape; zero: too young to tell, or not everything could be looked at
	Shape   [32]byte // names, types, sizes, permissions, owners, targets of links
	Content [32]byte // Shape, attributes, contents, and what could not be read; zero where they were not read, or Changing
	Files   int64
	Bytes   int64
	Newest  time.Time // change of any file

	// State and Content as they were made when attributes were not among them. Zero where those are, and where nothing has any that counts.
	OldState, OldContent [32]byte
	DirChange            time.Time // the last change of status of any directory, by which its attributes change
	Faults               []snapshot.Problem
	// Changing says that a fault is of something that changed, or vanished, while it was read: again it may be whole.
	Changing bool
}

// maxFaults bounds what is kept of what could not be read in one directory.
const maxFaults = 100

// meter builds a Measure, entry by entry in the order of paths.
type meter struct {
	state, shape, content hash.Hash
	attrs, dirAttrs       hash.Hash // nil: nothing has any
	m                     Measure
	read                  time.Time
	young                 bool
	faults                int
}

func newMeter(read time.Time) *meter {
	return &meter{state: sha256.New(), shape: sha256.New(), content: sha256.New(), read: read}
}

// entry adds what lstat tells of an entry whose path is rel within the directory.
func (t *meter) entry(e *snapshot.Entry, rel string) {
	hashText(t.shape, rel)
	hashNumbers(t.shape, int64(e.Type), int64(e.Mode), int64(e.UID), int64(e.GID), int64(e.Major), int64(e.Minor))
	hashText(t.shape, e.Link)
	if e.Type != snapshot.Dir {
		hashNumbers(t.shape, e.Size)
		hashNumbers(t.state, e.MTime.Sec, int64(e.MTime.Nsec), e.CTime.Sec, int64(e.CTime.Nsec))
		ctime := e.CTime.Time()
		t.young = t.young || ctime.Add(settled).After(t.read) && !ctime.After(t.read.Add(time.Minute))
		if at := e.MTime.Time(); at.After(t.m.Newest) {
			t.m.Newest = at
		}
	} else if at := e.CTime.Time(); at.After(t.m.DirChange) {
		t.m.DirChange = at
	}
	hashNumbers(t.state, int64(e.Ino))
	if len(e.Xattrs) > 0 {
		hashAttrs(&t.attrs, rel, e.Xattrs)
		if e.Type == snapshot.Dir { // whose times say nothing
			hashAttrs(&t.dirAttrs, rel, e.Xattrs)
		}
	}
	if e.Type == snapshot.File {
		t.m.Files++
		t.m.Bytes += e.Size
	}
}

func hashAttrs(to *hash.Hash, rel string, attrs []snapshot.Xattr) {
	if *to == nil {
		*to = sha256.New()
	}
	hashText(*to, rel)
	hashNumbers(*to, int64(len(attrs)))
	for _, x := range attrs {
		hashText(*to, x.Name)
		hashText(*to, x.Value)
	}
}

func (t *meter) data(sum [32]byte) { t.content.Write(sum[:]) }

func (t *meter) fault(path string, err error) {
	t.faults++
	t.m.Changing = t.m.Changing || errors.Is(err, errTorn) || errors.Is(err, fs.ErrNotExist)
	if len(t.m.Faults) < maxFaults {
		t.m.Faults = append(t.m.Faults, snapshot.Problem{Path: path, Reason: oneLine(err)})
	}
}

// errTorn is what is the matter with a copy that is none.
var errTorn = errors.New("not a true copy")

// end finishes; contents says that all files were read.
func (t *meter) end(contents bool) Measure {
	t.shape.Sum(t.m.Shape[:0])
	t.state.Write(t.m.Shape[:])
	steady := !t.young && t.faults == 0
	if t.dirAttrs != nil {
		if steady {
			t.state.Sum(t.m.OldState[:0])
		}
		t.state.Write(t.dirAttrs.Sum(nil))
	}
	if steady {
		t.state.Sum(t.m.State[:0])
	}
	if contents && !t.m.Changing && t.faults <= maxFaults {
		// The same unreadable things are no change: an archive without them is not stored again for their sake.
		slices.SortFunc(t.m.Faults, func(a, b snapshot.Problem) int { return strings.Compare(a.Path, b.Path) })
		for _, f := range t.m.Faults {
			hashText(t.content, f.Path)
		}
		if t.attrs != nil {
			if c, err := t.content.(hash.Cloner).Clone(); err == nil {
				c.Write(t.m.Shape[:])
				c.Sum(t.m.OldContent[:0])
			}
			t.content.Write(t.attrs.Sum(nil))
		}
		t.content.Write(t.m.Shape[:])
		t.content.Sum(t.m.Content[:0])
	}
	return t.m
}

// look fills in what lstat does not tell: the target of a link, and extended attributes where no time tells of their change. all
// says that those of files are wanted too.
func look(tree source.Tree, e *snapshot.Entry, all bool) error {
	if all || e.Type == snapshot.Symlink || e.Type == snapshot.Dir {
		return tree.Load(e)
	}
	return nil
}

// MeasureDir looks at all that is in a directory, of which tree is the tree. contents says whether files are read, on all
// processors.
func MeasureDir(ctx context.Context, tree source.Tree, full string, contents bool, now func() time.Time) (Measure, error) {
	t := newMeter(now())
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait() // nothing reads when it returns
	defer cancel()
	type sum struct {
		path string
		sum  [32]byte
		err  error
	}
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	order := make(chan chan sum, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c := range order {
			if s := <-c; s.err != nil {
				t.fault(s.path, s.err)
			} else {
				t.data(s.sum)
			}
		}
	}()
	var bad []snapshot.Problem
	err := tree.Walk(ctx, func(items []source.Item) error {
		for k := range items {
			e := items[k].Entry
			if items[k].Err != nil {
				bad = append(bad, snapshot.Problem{Path: e.Path, Reason: oneLine(items[k].Err)})
				if !items[k].Known {
					continue
				}
			}
			if err := look(tree, &e, contents); err != nil {
				bad = append(bad, snapshot.Problem{Path: e.Path, Reason: oneLine(err)})
				continue
			}
			t.entry(&e, below(e.Path, full))
			if !contents || e.Type != snapshot.File {
				continue
			}
			c := make(chan sum, 1)
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			order <- c
			wg.Go(func() {
				s, err := sumFile(tree, e)
				<-slots
				c <- sum{e.Path, s, err}
			})
		}
		return nil
	})
	close(order)
	<-done
	if err != nil {
		return Measure{}, err
	}
	for _, p := range bad {
		t.fault(p.Path, fmt.Errorf("%s", p.Reason))
	}
	return t.end(contents), nil
}

// sumFile hashes the stored form of a file.
func sumFile(tree source.Tree, e snapshot.Entry) (sum [32]byte, err error) {
	f, err := tree.Open(&e)
	if err != nil {
		return sum, err
	}
	defer f.Close() // it was only read
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 256<<10)); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, f.Check()
}

// below is what follows the directory full (absolute) in the path of an entry, empty for itself.
func below(path, full string) string {
	root := full[1:]
	if len(path) <= len(root) {
		return ""
	}
	if root == "" {
		return path
	}
	return path[len(root)+1:]
}

// MeasureSnapshot is what MeasureDir with contents said of the path full when the snapshot was made of it, but for State. dir says that it
// is a directory.
func MeasureSnapshot(ctx context.Context, db *catalog.DB, snap, full string) (m Measure, dir bool, err error) {
	t := newMeter(time.Time{})
	err = db.Entries(ctx, snap, catalog.Query{}, func(e snapshot.Entry) error {
		rel := below(e.Path, full)
		if rel == "" && e.Path != full[1:] {
			return nil // above it
		}
		dir = dir || rel == "" && e.Type == snapshot.Dir
		t.entry(&e, rel)
		if e.Type == snapshot.File {
			sum := e.Content.SHA256
			if e.Content.IsZero() {
				sum = sha256.Sum256(nil)
			}
			t.data(sum)
		}
		return nil
	})
	return t.end(true), dir, err
}
