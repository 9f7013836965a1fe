package glacierserver

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/treehash"
)

// Inventories are made once a day of simulated time: the days of a vault begin when it was made. One that
// would say the same as the last is not made, so that its date stays. As nothing
// watches the time, it is made late: by the first request after the day's end, before that does anything else;
// so it holds exactly what was there at the day's end. Only of what other programs
// delete in the vault, it may show less.

const (
	inventoryDay    = 24 * time.Hour
	inventoryPrefix = "inventory-"
)

// inventory tells of the newest inventory, the lines of which are in a file.
type inventory struct {
	Date     time.Time `json:"date"`
	Archives int64     `json:"archives"`
	Bytes    int64     `json:"bytes"`
	Digest   string    `json:"digest"` // over the ids, to see changes that other programs made
	File     string    `json:"file"`
}

// entry is one archive of an inventory, as the API shows it, and a line of the file.
type entry struct {
	ArchiveId          string
	ArchiveDescription string
	CreationDate       string
	Size               int64
	SHA256TreeHash     treehash.Hash
}

// tick makes the inventory that is due, and ends what has been idle for too long.
func (v *vault) tick(ctx context.Context, now time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.deleted {
		return nil
	}
	end := v.made.Add(now.Sub(v.made).Truncate(inventoryDay))
	if !end.After(v.made) || !end.After(v.ticked) {
		return nil
	}
	if v.st.Inventory != nil && !end.After(v.st.Inventory.Date) {
		v.ticked = end
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if err := v.endUploads(ctx, now); err != nil {
		return err
	}
	if err := v.expireJobs(now); err != nil {
		return err
	}
	if err := v.takeInventory(ctx, end); err != nil {
		return err
	}
	v.ticked = end
	return nil
}

// line is where in a file an entry stands.
type line struct {
	created int64
	id      string // the beginning of it, so that archives of one instant have an order that lasts
	at      int64
	size    int
}

// takeInventory writes the inventory as of the time end. v.mu is held.
func (v *vault) takeInventory(ctx context.Context, end time.Time) error {
	unsorted, err := os.OpenFile(filepath.Join(v.dir, durable.TempMark+rand.Text()), os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return err
	}
	defer os.Remove(unsorted.Name())
	defer unsorted.Close()
	var lines []line
	inv := inventory{Date: end, File: inventoryPrefix + strconv.FormatInt(end.UnixMilli(), 10) + ".jsonl"}
	newer := false
	at, digest := int64(0), uint64(0)
	w := bufio.NewWriterSize(unsorted, 1<<20)
	_, err = v.store.List(ctx, func(a coldstore.Archive) error {
		if !a.Created.Before(end) {
			newer = true
			return nil
		}
		id := v.wire(a.ID)
		digest ^= binary.BigEndian.Uint64([]byte(id))
		text, err := json.Marshal(entry{id, a.Description, stamp(a.Created), a.Size, a.TreeHash})
		if err != nil {
			return err
		}
		text = append(text, '\n')
		lines = append(lines, line{a.Created.UnixMilli(), strings.Clone(id[:12]), at, len(text)})
		at += int64(len(text))
		inv.Archives++
		inv.Bytes += a.Size
		_, err = w.Write(text)
		return err
	})
	if err != nil && !errors.Is(err, coldstore.ErrIntegrity) { // damaged archives are not in it
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	inv.Digest = strconv.FormatUint(digest, 16)
	last := v.st.Inventory
	if !v.st.Dirty && (last == nil && inv.Archives == 0 || last != nil && last.Archives == inv.Archives && last.Digest == inv.Digest) {
		return nil
	}
	if err := sortLines(unsorted, lines, filepath.Join(v.dir, inv.File)); err != nil {
		return err
	}
	before := v.st
	v.st.Inventory, v.st.Dirty = &inv, newer
	if err := v.save(); err != nil {
		v.st = before
		return err
	}
	if last != nil && last.File != inv.File {
		return os.Remove(filepath.Join(v.dir, last.File))
	}
	return nil
}

// sortLines writes the lines to path by date, durably.
func sortLines(from *os.File, lines []line, path string) error {
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.id, b.id), cmp.Compare(a.at, b.at))
	})
	temp := filepath.Join(filepath.Dir(path), durable.TempMark+rand.Text())
	return writeStream(temp, path, func(w io.Writer) error {
		buf := make([]byte, 0, 4096)
		for _, l := range lines {
			buf = slices.Grow(buf[:0], l.size)[:l.size]
			if _, err := from.ReadAt(buf, l.at); err != nil {
				return err
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeStream is durable.WriteFile for what does not fit in memory.
func writeStream(temp, path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = durable.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp) // or it is gone already
	}
	return err
}

// Where a list goes on: after how many lines of which inventory. As a list
// may have been made anew in between, the marker names the last archive listed.
type marker struct {
	Created string `json:"c"`
	ID      string `json:"i"`
}

func (m marker) String() string {
	text, err := json.Marshal(m)
	if err != nil { // of two strings: it cannot be
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func parseMarker(s string) (m marker, err error) {
	text, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || m.ID == "" || m.Created == "" {
		return m, invalid("Invalid marker: %s", s)
	}
	return m, nil
}

// writeInventoryOutput writes what a job will give, from the newest inventory.
func (v *vault) writeInventoryOutput(j *job) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	inv := v.st.Inventory
	if inv == nil {
		return notFound("Inventory retrieval cannot be initiated: no inventory of the vault was made yet: %s", j.ARN)
	}
	in := j.Inventory
	var after *marker
	if in.Marker != "" {
		m, err := parseMarker(in.Marker)
		if err != nil {
			return err
		}
		after = &m
	}
	f, err := os.Open(filepath.Join(v.dir, inv.File))
	if err != nil {
		return err
	}
	defer f.Close()
	temp := filepath.Join(v.dir, "jobs", durable.TempMark+rand.Text())
	err = writeStream(temp, v.jobPath(j, ".out"), func(w io.Writer) error {
		c := &counter{w: w}
		next, err := inventoryText(c, f, j, inv.Date, after)
		in.Next, j.OutputSize = next, c.n
		return err
	})
	return err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// inventoryText writes the list as a job wants it: JSON or CSV, of a range of dates, after a marker, up to a
// limit. next is where another job would go on, "" at the end.
func inventoryText(w io.Writer, lines io.Reader, j *job, made time.Time, after *marker) (next string, err error) {
	in := j.Inventory
	list := listWriter{w: w, csv: in.Format == "CSV"}
	if err := list.begin(j.ARN, made); err != nil {
		return "", err
	}
	start, end := stampOrNull(in.Start), stampOrNull(in.End)
	skipping := after != nil
	var last marker
	r := bufio.NewReaderSize(lines, 1<<20)
	n := int64(0)
	for {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		var e entry
		if err := json.Unmarshal(text, &e); err != nil {
			return "", err
		}
		if skipping {
			// Up to the archive that was last; or, if that is gone, to one made later.
			if e.ArchiveId == after.ID {
				skipping = false
				continue
			}
			if e.CreationDate <= after.Created {
				continue
			}
			skipping = false
		}
		if start != nil && e.CreationDate < *start || end != nil && e.CreationDate >= *end {
			continue
		}
		if in.Limit > 0 && n == in.Limit {
			next = last.String()
			break
		}
		if err := list.add(e, bytes.TrimSpace(text)); err != nil {
			return "", err
		}
		last = marker{e.CreationDate, e.ArchiveId}
		n++
	}
	return next, list.end()
}

// listWriter writes the two formats of inventories.
type listWriter struct {
	w   io.Writer
	csv bool
	n   int
}

func (l *listWriter) begin(arn string, made time.Time) error {
	if l.csv {
		_, err := io.WriteString(l.w, "ArchiveId,ArchiveDescription,CreationDate,Size,SHA256TreeHash\r\n")
		return err
	}
	name, err := json.Marshal(arn)
	if err != nil {
		return err
	}
	_, err = io.WriteString(l.w, `{"VaultARN":`+string(name)+`,"InventoryDate":"`+stamp(made)+`","ArchiveList":[`)
	return err
}

func (l *listWriter) add(e entry, text []byte) error {
	if l.csv {
		text = []byte(strings.Join([]string{
			e.ArchiveId, csvField(e.ArchiveDescription), e.CreationDate, strconv.FormatInt(e.Size, 10), e.SHA256TreeHash.String(),
		}, ",") + "\r\n")
	} else if l.n > 0 {
		text = append([]byte{','}, text...)
	}
	l.n++
	_, err := l.w.Write(text)
	return err
}

func (l *listWriter) end() error {
	if l.csv {
		return nil
	}
	_, err := io.WriteString(l.w, "]}")
	return err
}

// csvField quotes as the service does: quotes get a backslash, backslashes get nothing, so that what
// is written cannot always be read back.
func csvField(s string) string {
	if !strings.ContainsAny(s, `",`) {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
}
