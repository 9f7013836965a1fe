package source

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/sendstream"
)

// Point is a point in time that a producer can send the data of, or build an incremental on: a
// snapshot of a file system. Producers without such a thing have points of which only At is set.
type Point struct {
	Name string // what the producer finds it by: "tank/home@x", "/srv/.firn/x"
	// ID is what makes it the same wherever it is called differently, and is in the stream: a ZFS guid in decimal, a btrfs
	// UUID. Empty: nothing can build on it.
	ID       string
	At       time.Time // the data's date
	Own      bool      // made by this Stream: Release removes it
	Held     bool      // somebody keeps it from being removed, perhaps this Stream: Release lets go of it
	BaseOnly bool      // an incremental can build on it, and it cannot be sent any more
}

// StreamTraits are what a caller must know of a producer.
type StreamTraits struct {
	Format sendstream.Format // of what it sends; empty: only the first bytes tell
	Points bool              // it has points that incrementals can build on
	Again  bool              // Open can be called more than once
}

// ErrNoPoint says that there is nothing to send: where others make the points, they have made none.
var ErrNoPoint = errors.New("there is no snapshot to send")

// A Stream is a producer of one stream a run: a file system's snapshots, a
// program, standard input. Its methods are for one goroutine. All but Release may
// be repeated; an error leaves nothing behind that Points does not list.
type Stream interface {
	Traits() StreamTraits

	// Make makes a point of the data as it is now; at is for its name, and is its date where the
	// producer keeps none. Where points are made by others it finds the newest, or returns ErrNoPoint.
	// Either way nobody removes the point before Release, where the producer can see to that.
	Make(ctx context.Context, at time.Time) (Point, error)

	// Points lists those that there are now, oldest first: its own, and, where the points are
	// made by others, those of them that are meant. None where Traits().Points is not set.
	Points(ctx context.Context) ([]Point, error)

	// Open begins to send p: all of it, or, with base, what is different from that. Reading returns io.EOF only when
	// the producer has ended and says that all went well; everything else is its error.
	// Close ends the producer if it still runs, and waits for it; it must be called.
	// The same point sent twice gives the same bytes, if the producer is such a one; the caller must not rely on it.
	Open(ctx context.Context, p Point, base *Point) (io.ReadCloser, error)

	// Keep says that p is stored and that the next incremental may build on it.
	Keep(ctx context.Context, p Point) error

	// Release says that p is not needed any more: a point of its own is removed, another's is let
	// go. Never one of another set's or program's is removed. A point that is no more is no error.
	Release(ctx context.Context, p Point) error
}

// nameTime is how the names of own points write the time they were made at, in UTC.
const nameTime = "2006-01-02T15.04.05Z"

// OwnName is a name for an own point: a prefix, which tells whose it is, the time, and what makes it another one
// than all before: a chain is received under these names, also where the times are the same.
func OwnName(prefix string, at time.Time) string {
	return prefix + at.UTC().Format(nameTime) + "-" + strings.ToLower(rand.Text()[:6])
}

// OwnTime reads the time of OwnName; ok is false where the name has none.
func OwnTime(prefix, name string) (at time.Time, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok || len(rest) < len(nameTime) {
		return at, false
	}
	at, err := time.Parse(nameTime, rest[:len(nameTime)])
	return at, err == nil
}

// A Receiver takes streams to where they came from: zfs receive, btrfs receive.
type Receiver interface {
	// Receive gives the receiver one stream, which builds on the one before unless first is set. An error of
	// r stops the receiver without letting it see an end. It returns when the receiver has ended and all went well.
	Receive(ctx context.Context, r io.Reader, first bool) error
}
