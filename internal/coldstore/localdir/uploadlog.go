package localdir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// An upload is a directory with two files: data, into which parts are written at
// their offsets, and a log of JSON lines: first what the upload is, then a line
// for every part that was acknowledged.
//
// A part's line is written after its data was synced, and is not synced
// itself: a power failure can make the log forget a part, which is then sent
// again, but never claim one that is not there. Before a part is overwritten with other data, a line that
// withdraws it is synced.
//
// Parts that were put deferred have no line before they are flushed: until then this process alone
// knows of them (see loose).
//
// Every line is written with a newline before it as well: what a crash left
// of a line ends there, and is skipped as unreadable.

// logHead is a log's first line.
type logHead struct {
	Format      int       `json:"format"`
	Upload      string    `json:"upload"`
	Name        string    `json:"name"` // as it was asked for; may be empty
	ID          string    `json:"id"`   // what the archive will be called
	Description string    `json:"description"`
	PartSize    int64     `json:"partSize"`
	Created     time.Time `json:"created"`
}

// logLine is every other line: one of Part and Drop is set.
type logLine struct {
	Part *int64        `json:"part,omitempty"` // offset of a part that is there
	Drop *int64        `json:"drop,omitempty"` // offset of one that is not any more
	Size int64         `json:"size,omitempty"`
	Hash treehash.Hash `json:"hash,omitzero"`
	At   time.Time     `json:"at"`
}

// upload is what a Store knows of one upload.
type upload struct {
	head logHead

	use   sync.RWMutex   // parts that are being put hold it shared; whoever ends the upload, alone
	parts [64]sync.Mutex // by part number modulo their number: one part is put by one at a time

	mu    sync.Mutex // for what follows
	there map[int64]coldstore.Part
	loose *loose    // nil: there is nothing deferred
	last  time.Time // of the last line
	read  int64     // bytes of the log that are in the above
}

// errUnreadable says that a log does not begin as one: nobody has been told of that upload.
var errUnreadable = errors.New("unreadable upload")

// readLog reads a whole log.
func readLog(f *os.File) (*upload, error) {
	u := &upload{there: map[int64]coldstore.Part{}}
	if err := u.refresh(f); err != nil {
		return nil, err
	}
	if u.head.Upload == "" {
		return nil, errUnreadable
	}
	if u.head.Format > Version {
		return nil, fmt.Errorf("the upload has format %d, which needs a newer Firn: %w", u.head.Format, coldstore.ErrUnsupported)
	}
	return u, nil
}

// refresh takes in what was added to the log, by this process or another, since the last time.
func (u *upload) refresh(f *os.File) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() <= u.read {
		return nil
	}
	text := make([]byte, info.Size()-u.read)
	n, err := f.ReadAt(text, u.read)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	text = text[:n]
	for {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			return nil
		}
		u.take(text[:end])
		u.read += int64(end) + 1
		text = text[end+1:]
	}
}

// take takes in one line of the log.
func (u *upload) take(text []byte) {
	if u.head.Upload == "" {
		var head logHead
		if json.Unmarshal(text, &head) == nil && head.Upload != "" && head.PartSize > 0 && checkName(head.ID) == nil {
			u.head, u.last = head, head.Created
		}
		return
	}
	var line logLine
	if json.Unmarshal(text, &line) != nil {
		return
	}
	switch {
	case line.Drop != nil:
		delete(u.there, *line.Drop)
	case line.Part != nil && line.Size > 0:
		u.there[*line.Part] = coldstore.Part{Offset: *line.Part, Size: line.Size, TreeHash: line.Hash}
	default:
		return
	}
	if line.At.After(u.last) {
		u.last = line.At
	}
}

// part tells of the part at off, as of the last refresh.
func (u *upload) part(off int64) (coldstore.Part, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	p, ok := u.there[off]
	return p, ok
}

// sorted are the parts by offset, as of the last refresh.
func (u *upload) sorted() []coldstore.Part {
	u.mu.Lock()
	defer u.mu.Unlock()
	parts := make([]coldstore.Part, 0, len(u.there))
	for _, off := range slices.Sorted(maps.Keys(u.there)) {
		parts = append(parts, u.there[off])
	}
	return parts
}

// whole are size and tree hash of all parts together, as of the last refresh.
func (u *upload) whole() (size int64, hash treehash.Hash) {
	parts := u.sorted()
	hashes := make([]treehash.Hash, len(parts))
	for i, p := range parts {
		size += p.Size
		hashes[i] = p.TreeHash
	}
	return size, treehash.Combine(hashes)
}

// appendLine adds a line to a log that was opened for appending.
func appendLine(f *os.File, line any) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	text = append(append([]byte{'\n'}, text...), '\n')
	_, err = f.Write(text)
	return err
}
