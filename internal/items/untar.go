package items

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/extract"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// links are hard links that are asked for, by the member that they lead to, which is not: it comes before them in the stream.
type links map[string][]snapshot.Entry

// directory restores a directory from its archive, or the paths of it that are asked for. Where links among these lead to what is not, the
// archive is read once more for what they lead to.
func (r *restorer) directory(ctx context.Context, open func() (io.ReadCloser, error), w wanted) error {
	late := links{}
	read := func(again bool) error {
		in, err := open()
		if err != nil {
			return err
		}
		defer in.Close()
		return r.untar(ctx, in, w, late, again)
	}
	err := read(false)
	if len(late) == 0 || ctx.Err() != nil || err != nil && (extract.Fatal(err) || isStream(err) || failure.KindOf(err) == failure.Damaged) {
		return err
	}
	return errors.Join(err, read(true))
}

// untar extracts the tar stream of a directory, below the item's own path. again: only what the links lead to that were met before.
func (r *restorer) untar(ctx context.Context, in io.Reader, w wanted, late links, again bool) error {
	t := tar.NewReader(in)
	var base *rebase
	var dirs []snapshot.Entry
	var first error
	bad := func(name string, err error) {
		if first == nil {
			first = fmt.Errorf("%s: %w", name, err)
		}
	}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damagedTar(err)
		}
		if base == nil {
			base = rebaseOf(h.Name, w.Path)
		}
		h.Name = base.name(h.Name)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = base.name(h.Linkname)
		}
		e, err := tarEntry(h)
		if err != nil {
			bad(h.Name, err)
			continue
		}
		if again && e.Type != snapshot.Dir {
			if err := late.restore(r, e, h, t); err != nil && !errors.Is(err, extract.ErrMetadata) {
				if extract.Fatal(err) || isStream(err) {
					return damagedTar(err)
				}
				bad(h.Name, err)
			}
			continue
		}
		if !within(e.Path, w.under) {
			continue
		}
		target, ok := r.target(e.Path)
		if !ok {
			continue
		}
		e.Path = target
		if to := strings.Trim(h.Linkname, "/"); h.Typeflag == tar.TypeLink && !within(to, w.under) {
			late[to] = append(late[to], e)
			continue
		}
		if e.Type == snapshot.Dir {
			dirs = append(dirs, e)
		}
		if err := r.member(&e, h, t); err != nil && !errors.Is(err, extract.ErrMetadata) && !errors.Is(err, extract.ErrUnsupported) {
			if extract.Fatal(err) || isStream(err) {
				return damagedTar(err)
			}
			bad(h.Name, err)
		}
	}
	if again {
		for to, names := range late {
			bad(names[0].Path, fmt.Errorf("%s, which it is a link to, is not in the archive", to))
		}
	}
	for _, d := range slices.Backward(dirs) {
		if err := r.root.FinishDir(&d); err != nil && !errors.Is(err, extract.ErrMetadata) {
			bad(d.Path, err)
		}
	}
	// Behind the stream's end the hashes of the whole archive are compared.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("what was extracted of it is not to be trusted: %w", err)
	}
	return first
}

// restore writes a member under the names of the links to it.
func (l links) restore(r *restorer, e snapshot.Entry, h *tar.Header, in io.Reader) error {
	names := l[e.Path]
	if len(names) == 0 || h.Typeflag == tar.TypeLink {
		return nil
	}
	delete(l, e.Path)
	e.Path = names[0].Path
	err := r.member(&e, h, in)
	for k := range names[1:] {
		if err != nil && !errors.Is(err, extract.ErrMetadata) {
			break
		}
		err = r.root.HardLink(names[0].Path, &names[k+1])
	}
	return err
}

// rebase gives the members of a tar the names that the item's own have: other programs made tars of absolute paths, whose first member is the
// directory itself.
type rebase struct{ from, to string }

// rebaseOf looks at a tar's first member.
func rebaseOf(first, item string) *rebase {
	from := strings.Trim(path.Clean("/"+first), "/")
	if from == item || path.Base(from) != path.Base(item) {
		return &rebase{}
	}
	return &rebase{from: from, to: item}
}

// name is a member's name; what does not lie in the directory keeps it.
func (b *rebase) name(name string) string {
	if b.from == "" {
		return name
	}
	p := strings.Trim(path.Clean("/"+name), "/")
	if !snapshot.Below(p, b.from) {
		return name
	}
	return b.to + strings.TrimPrefix(p, b.from)
}

// within says whether a member is one of the paths that are asked for, lies below one or above it.
func within(p string, under []string) bool {
	if len(under) == 0 {
		return true
	}
	return slices.ContainsFunc(under, func(u string) bool { return snapshot.Below(p, u) || snapshot.Below(u, p) })
}

// streamError is an error of reading the archive, not of writing a member.
type streamError struct{ error }

func (e streamError) Unwrap() error { return e.error }

func isStream(err error) bool {
	var s streamError
	return errors.As(err, &s)
}

func damagedTar(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return failure.Wrap(failure.Damaged, fmt.Errorf("tar stream: %w: %w", codec.ErrDamaged, err))
	}
	return err
}

// tee tells errors of reading from those of writing.
type tee struct{ r io.Reader }

func (t tee) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = streamError{err}
	}
	return n, err
}

func (r *restorer) member(e *snapshot.Entry, h *tar.Header, in io.Reader) error {
	switch e.Type {
	case snapshot.Dir:
		return r.root.Mkdir(e)
	case snapshot.Symlink:
		return r.root.Symlink(e)
	case snapshot.Fifo:
		return r.root.Fifo(e)
	case snapshot.CharDev, snapshot.BlkDev:
		return r.root.Device(e)
	}
	if h.Typeflag == tar.TypeLink {
		link, ok := r.target(strings.Trim(h.Linkname, "/"))
		if !ok {
			return nil
		}
		return r.root.HardLink(link, e)
	}
	f, err := r.root.File(e)
	if err != nil {
		return err
	}
	defer f.Close() // thrown away unless it was committed
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, tee{in}, make([]byte, 256<<10)); err != nil {
		return err
	}
	return f.Commit()
}

// tarEntry is a member as an entry.
func tarEntry(h *tar.Header) (snapshot.Entry, error) {
	e := snapshot.Entry{
		Path: strings.Trim(h.Name, "/"), Mode: uint32(h.Mode) & 0o7777, UID: uint32(h.Uid), GID: uint32(h.Gid), User: h.Uname, Group: h.Gname,
		MTime: snapshot.TimeOf(h.ModTime), Major: uint32(h.Devmajor), Minor: uint32(h.Devminor),
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		e.Type, e.Size = snapshot.File, h.Size
	case tar.TypeLink:
		e.Type = snapshot.File
	case tar.TypeDir:
		e.Type = snapshot.Dir
	case tar.TypeSymlink:
		e.Type, e.Link = snapshot.Symlink, h.Linkname
	case tar.TypeFifo:
		e.Type = snapshot.Fifo
	case tar.TypeChar:
		e.Type = snapshot.CharDev
	case tar.TypeBlock:
		e.Type = snapshot.BlkDev
	default:
		return e, fmt.Errorf("a member of type %q", h.Typeflag)
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			e.Xattrs = append(e.Xattrs, snapshot.Xattr{Name: name, Value: v})
		}
	}
	slices.SortFunc(e.Xattrs, func(a, b snapshot.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return e, nil
}
