package cli

import (
	"encoding/hex"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/snapshot"
)

// jsonEntry is an entry of a snapshot in lists.
type jsonEntry struct {
	jsonPath
	Type   string  `json:"type"`
	Mode   string  `json:"mode"` // octal
	UID    uint32  `json:"uid"`
	GID    uint32  `json:"gid"`
	User   string  `json:"user,omitempty"`
	Group  string  `json:"group,omitempty"`
	MTime  string  `json:"mtime"`
	Size   int64   `json:"size"`
	Link   *string `json:"link,omitempty"`
	Link64 []byte  `json:"link64,omitempty"`
	SHA256 string  `json:"sha256,omitempty"` // of a regular file's content; absent for sparse files
	Torn   bool    `json:"torn,omitempty"`
}

func entryJSON(e *snapshot.Entry) *jsonEntry {
	j := &jsonEntry{
		jsonPath: pathJSON(e.Path), Type: typeName(e.Type), Mode: fmt.Sprintf("%04o", e.Mode), UID: e.UID, GID: e.GID,
		User: e.User, Group: e.Group, MTime: e.MTime.Time().Format(time.RFC3339Nano), Size: e.Size, Torn: e.Torn,
	}
	switch {
	case e.Type != snapshot.Symlink:
	case utf8.ValidString(e.Link):
		j.Link = &e.Link
	default:
		j.Link64 = []byte(e.Link)
	}
	if e.Type == snapshot.File && !e.Content.IsZero() && !e.Content.Sparse {
		j.SHA256 = hex.EncodeToString(e.Content.SHA256[:])
	}
	return j
}

func typeName(t snapshot.Type) string {
	switch t {
	case snapshot.File:
		return "file"
	case snapshot.Dir:
		return "directory"
	case snapshot.Symlink:
		return "symlink"
	case snapshot.Fifo:
		return "fifo"
	case snapshot.CharDev:
		return "character device"
	case snapshot.BlkDev:
		return "block device"
	}
	return "unknown"
}

// modeText is the mode as ls -l shows it: "drwxr-xr-x".
func modeText(e *snapshot.Entry) string {
	first := map[snapshot.Type]byte{snapshot.File: '-'}[e.Type]
	if first == 0 {
		first = byte(e.Type) // the letters are those of ls
	}
	b := []byte{first}
	for i, c := range []byte("rwxrwxrwx") {
		if e.Mode&(1<<(8-i)) == 0 {
			c = '-'
		}
		b = append(b, c)
	}
	special := func(at int, bit uint32, on, off byte) {
		switch {
		case e.Mode&bit == 0:
		case b[at] == 'x':
			b[at] = on
		default:
			b[at] = off
		}
	}
	special(3, 0o4000, 's', 'S')
	special(6, 0o2000, 's', 'S')
	special(9, 0o1000, 't', 'T')
	return string(b)
}

// name is an entry's path as lists show it, a directory with a slash at its end.
func name(e *snapshot.Entry) string {
	if e.Type == snapshot.Dir {
		return shown(e.Path) + "/"
	}
	return shown(e.Path)
}

// where says which snapshot is spoken of.
func (c *command) where(set catalog.Set, s catalog.Snapshot) string {
	return fmt.Sprintf("%s, snapshot %d of %s (%s)", set.Name, s.N, c.stamp(s.At), s.ID)
}
