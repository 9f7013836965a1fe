package itemstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/volume"
	"github.com/firn-backup/firn/treehash"
)

// ErrChanged says that something changed while it was read, so that nothing of it was stored.
var ErrChanged = errors.New("it changed while it was read")

// ErrSource is what errors of reading what is to be stored are: others may be read all the same.
var ErrSource = errors.New("cannot be read")

// Opener opens a regular file of the set without following a link at its end.
type Opener func() (*os.File, error)

// Dir opens files below a directory, never outside of it.
type Dir struct{ root *os.Root }

// OpenDir opens a directory.
func OpenDir(path string) (*Dir, error) {
	r, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Dir{r}, nil
}

// Close closes it.
func (d *Dir) Close() error { return d.root.Close() }

// Opener is for the file at a relative path.
func (d *Dir) Opener(rel string) Opener {
	return func() (*os.File, error) {
		return d.root.OpenFile(rel, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	}
}

// FileOpener is for a file by its name; a link is followed.
func FileOpener(path string) Opener {
	return func() (*os.File, error) {
		return os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	}
}

// stat is what an open regular file is now.
func stat(f *os.File) (snapshot.Entry, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return snapshot.Entry{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return snapshot.Entry{}, errors.New("it is no regular file")
	}
	return snapshot.Entry{Type: snapshot.File, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Size: st.Size, Ino: st.Ino, Dev: st.Dev,
		MTime: snapshot.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)}, CTime: snapshot.Time{Sec: st.Ctim.Sec, Nsec: int32(st.Ctim.Nsec)}}, nil
}

func sourceError(err error) error {
	if err == nil || errors.Is(err, ErrChanged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSource, err)
}

// fill puts what lstat tells into an item.
func fillStat(i *catalog.Item, e *snapshot.Entry) {
	i.Mode, i.UID, i.GID, i.MTime = e.Mode, e.UID, e.GID, e.MTime
}

// HashBuffer is a buffer for HashFile: of two leaves, which are hashed at a time.
func HashBuffer() []byte { return make([]byte, 2*treehash.LeafSize) }

// HashFile reads a file. It returns its tree hash and what it was when it was opened; ErrChanged where that was not what it
// was in the end; read is when the reading began. One processor is used: several files may be hashed at a time.
func HashFile(ctx context.Context, open Opener, buf []byte, wall func() time.Time, count func(int64)) (h treehash.Hash, e snapshot.Entry, read time.Time, err error) {
	f, err := open()
	if err != nil {
		return h, e, read, sourceError(err)
	}
	defer f.Close() // it was only read
	read = wall()
	if e, err = stat(f); err != nil {
		return h, e, read, sourceError(err)
	}
	sum := treehash.New()
	if _, err = copyFile(ctx, sum, f, buf, count); err != nil {
		return h, e, read, err
	}
	return sum.Sum(), e, read, unchanged(f, &e, sum.Size())
}

// copyFile copies what f has, or fails when ctx is done.
func copyFile(ctx context.Context, w io.Writer, f *os.File, buf []byte, count func(int64)) (int64, error) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL) // only advice
	var all int64
	for {
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
		n, err := f.Read(buf)
		if n > 0 {
			all += int64(n)
			if count != nil {
				count(int64(n))
			}
			if _, werr := w.Write(buf[:n]); werr != nil {
				return all, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, sourceError(err)
		}
	}
}

func unchanged(f *os.File, was *snapshot.Entry, read int64) error {
	now, err := stat(f)
	if err != nil {
		return sourceError(err)
	}
	if read != was.Size || now.Size != was.Size || now.MTime != was.MTime || now.CTime != was.CTime {
		return ErrChanged
	}
	return nil
}

// FilePiece is a regular file as a piece. names tells the names of owners; it may be nil. count is told of bytes read.
func FilePiece(i catalog.Item, expect int64, open Opener, wall func() time.Time, names func(uid, gid uint32) (user, group string), count func(int64)) Piece {
	var f *os.File
	var was snapshot.Entry
	var at time.Time
	return Piece{
		Item: i, Expect: expect,
		Write: func(ctx context.Context, w io.Writer) (err error) {
			if f != nil {
				f.Close()
			}
			if f, err = open(); err != nil {
				f = nil
				return sourceError(err)
			}
			at = wall()
			if was, err = stat(f); err != nil {
				return errors.Join(sourceError(err), f.Close())
			}
			n, err := copyFile(ctx, w, f, make([]byte, 1<<20), count)
			if err == nil {
				err = unchanged(f, &was, n)
			}
			return errors.Join(err, f.Close(), clear(&f))
		},
		Done: func(i *catalog.Item) error {
			// The description tells a time, which must be that of what was read.
			if was.MTime != i.MTime {
				return ErrChanged
			}
			fillStat(i, &was)
			if names != nil {
				i.User, i.Group = names(i.UID, i.GID)
			}
			i.State = FileState(&was, at)
			return nil
		},
	}
}

func clear(f **os.File) error { *f = nil; return nil }

// ArchiveHash is the tree hash of the archive that a piece would be stored as; it means something only where nothing is
// encrypted: the same bytes then always become the same archive.
func ArchiveHash(ctx context.Context, c codec.Compressor, e codec.Encryptor, p Piece) (treehash.Hash, error) {
	if c.Name() == codec.None && e.Name() == codec.None {
		return PlainHash(ctx, p)
	}
	sum := treehash.New()
	w := volume.NewWriter(ctx, volume.Options{Size: -1, NoVerify: true, Compress: c, Encrypt: e, FrameSize: frameSize(p),
		Open: func(context.Context, int) (volume.Sink, error) { return hashSink{sum}, nil }})
	if err := p.Write(ctx, w); err != nil {
		w.Abort()
		return treehash.Hash{}, err
	}
	err := w.Close()
	return sum.Sum(), err
}

// SameArchive says whether a piece would become the archive that an item is, by the archive's tree hash: what is not encrypted always
// becomes the same bytes, under the same codec and level.
func SameArchive(ctx context.Context, o Options, p Piece, old catalog.Item) (bool, error) {
	if o.Encrypt.Name() != codec.None || o.Compress.Name() != old.Compress {
		return false, nil
	}
	h, err := ArchiveHash(ctx, o.Compress, o.Encrypt, p)
	return err == nil && h == old.Archive.TreeHash, err
}

// PlainHash is the tree hash of a piece's bytes.
func PlainHash(ctx context.Context, p Piece) (treehash.Hash, error) {
	sum := treehash.New()
	err := p.Write(ctx, sum)
	return sum.Sum(), err
}

// hashSink is an archive that is not stored.
type hashSink struct{ *treehash.Hasher }

func (hashSink) Finish(context.Context, *manifest.Volume) error { return nil }
func (hashSink) Abort(context.Context) error                    { return nil }

// frameSize is that of the frames of a piece; 0: the default.
func frameSize(p Piece) int {
	if p.large() {
		return 0
	}
	return smallFrame
}

func (p *Piece) large() bool { return p.Expect > small || p.Item.Dir }

// StatFile is what the file of an opener is now.
func StatFile(open Opener) (snapshot.Entry, error) {
	f, err := open()
	if err != nil {
		return snapshot.Entry{}, sourceError(err)
	}
	defer f.Close() // it was only looked at
	e, err := stat(f)
	return e, sourceError(err)
}

// maxTries is how often a file that changes while it is read is read.
const maxTries = 3

// PutFile stores a regular file as the current version of item i, again when it changes meanwhile. ErrChanged when it keeps changing.
func (s *Session) PutFile(ctx context.Context, i catalog.Item, open Opener, names func(uid, gid uint32) (user, group string), count func(int64)) (catalog.Item, error) {
	var err error
	for range maxTries {
		var e snapshot.Entry
		if e, err = StatFile(open); err != nil {
			return i, fmt.Errorf("store %s: %w", i.Path, err)
		}
		fillStat(&i, &e)
		i.State = FileState(&e, s.o.Wall())
		var stored catalog.Item
		if stored, err = s.Put(ctx, FilePiece(i, e.Size, open, s.o.Wall, names, count)); !errors.Is(err, ErrChanged) {
			return stored, err
		}
	}
	return i, err
}
