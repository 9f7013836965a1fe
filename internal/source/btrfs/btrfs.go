// Package btrfs is the source of btrfs snapshots, sent by btrfs send, and their
// way back by btrfs receive. It makes read-only snapshots of a subvolume, or takes
// those that others make, and removes its own ones only.
package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/sendstream"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/process"
)

// Options say what to send. Set is needed, and Subvolume unless Existing is set.
type Options struct {
	Subvolume string // absolute path
	Dir       string // where own snapshots lie, in the same file system; empty: .firn in the subvolume

	Existing bool     // send snapshots that others make
	Match    []string // glob patterns of their absolute paths

	Set     string // the set's id: names own snapshots
	Program string // empty: btrfs
}

// DefaultDir is where own snapshots lie, in the subvolume, unless Options.Dir says otherwise. A snapshot of the subvolume
// has an empty directory there.
const DefaultDir = ".firn"

// Source is a subvolume. It is for one goroutine.
type Source struct{ o Options }

var _ source.Stream = (*Source)(nil)

// New makes a source. Nothing is looked at before it is used.
func New(o Options) (*Source, error) {
	if o.Program == "" {
		o.Program = "btrfs"
	}
	if !o.Existing && !filepath.IsAbs(o.Subvolume) {
		return nil, fmt.Errorf("subvolume %q is not an absolute path", o.Subvolume)
	}
	if o.Existing && len(o.Match) == 0 {
		return nil, errors.New("no pattern of snapshots")
	}
	for _, m := range o.Match {
		if _, err := filepath.Match(m, ""); err != nil || !filepath.IsAbs(m) {
			return nil, fmt.Errorf("%q is not a pattern of absolute paths", m)
		}
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(o.Subvolume, DefaultDir)
	}
	return &Source{o: o}, nil
}

// Traits says that its points can be built on.
func (s *Source) Traits() source.StreamTraits {
	return source.StreamTraits{Format: sendstream.Btrfs, Points: true, Again: true}
}

func (s *Source) run(ctx context.Context, args ...string) (string, error) {
	name := s.o.Program + " " + args[0]
	if args[0] == "subvolume" || args[0] == "filesystem" {
		name += " " + args[1]
	}
	return process.Run(ctx, name, append([]string{s.o.Program}, args...)...)
}

func (s *Source) prefix() string { return "firn-" + s.o.Set + "-" }

// own says that a path is one that this set gives its snapshots.
func (s *Source) own(path string) bool {
	return !s.o.Existing && filepath.Dir(path) == filepath.Clean(s.o.Dir) && strings.HasPrefix(filepath.Base(path), s.prefix())
}

// Points lists the snapshots, read-only as they must be.
func (s *Source) Points(ctx context.Context) ([]source.Point, error) {
	paths, err := s.paths()
	if err != nil {
		return nil, err
	}
	parent := ""
	if s.o.Existing && s.o.Subvolume != "" {
		v, err := s.show(ctx, s.o.Subvolume)
		if err != nil {
			return nil, err
		}
		parent = v.uuid
	}
	var list []source.Point
	for _, path := range paths {
		v, err := s.show(ctx, path)
		if err != nil {
			if s.o.Existing && ctx.Err() == nil { // not a subvolume, or just deleted
				continue
			}
			return nil, err
		}
		if !v.readonly || parent != "" && v.parent != parent {
			continue
		}
		list = append(list, s.point(path, v))
	}
	// Names of one second go by the number of the subvolume, which paths, being in order, mostly show.
	slices.SortStableFunc(list, func(a, b source.Point) int { return a.At.Compare(b.At) })
	return list, nil
}

// point is a snapshot as a point; the date of an own one is that of the clock that the set goes by.
func (s *Source) point(path string, v subvolume) source.Point {
	p := source.Point{Name: path, ID: v.id(), At: v.created, Own: s.own(path)}
	if at, ok := source.OwnTime(s.prefix(), filepath.Base(path)); ok && p.Own {
		p.At = at
	}
	return p
}

// paths are where snapshots may be, in order.
func (s *Source) paths() ([]string, error) {
	var all []string
	if !s.o.Existing {
		entries, err := os.ReadDir(s.o.Dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), s.prefix()) {
				all = append(all, filepath.Join(s.o.Dir, e.Name()))
			}
		}
		return all, nil
	}
	for _, m := range s.o.Match {
		found, err := filepath.Glob(m)
		if err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		all = append(all, found...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// subvolume is what btrfs subvolume show tells.
type subvolume struct {
	uuid, received, parent string
	created                time.Time
	readonly               bool
}

// id is the UUID that streams bear: that of the original, of a snapshot that was received.
func (v subvolume) id() string {
	if v.received != "" {
		return v.received
	}
	return v.uuid
}

func (s *Source) show(ctx context.Context, path string) (subvolume, error) {
	var v subvolume
	out, err := s.run(ctx, "subvolume", "show", "--", path)
	if err != nil {
		return v, err
	}
	for line := range strings.Lines(out) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if value == "-" {
			value = ""
		}
		switch key {
		case "UUID":
			v.uuid = value
		case "Received UUID":
			v.received = value
		case "Parent UUID":
			v.parent = value
		case "Flags":
			v.readonly = strings.Contains(value, "readonly")
		case "Creation time":
			if v.created, err = time.Parse("2006-01-02 15:04:05 -0700", value); err != nil {
				return v, fmt.Errorf("%s subvolume show %s: creation time: %w", s.o.Program, path, err)
			}
		}
	}
	if v.uuid == "" || v.created.IsZero() {
		return v, fmt.Errorf("%s subvolume show %s: its answer is not understood", s.o.Program, path)
	}
	v.created = v.created.UTC()
	return v, nil
}

// Make makes a read-only snapshot, or finds the newest existing one.
func (s *Source) Make(ctx context.Context, at time.Time) (source.Point, error) {
	if s.o.Existing {
		points, err := s.Points(ctx)
		if err == nil && len(points) == 0 {
			err = fmt.Errorf("%s: %w", strings.Join(s.o.Match, ", "), source.ErrNoPoint)
		}
		if err != nil {
			return source.Point{}, err
		}
		return points[len(points)-1], nil
	}
	if err := os.Mkdir(s.o.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return source.Point{}, fmt.Errorf("make the directory of snapshots: %w", err)
	}
	path := filepath.Join(s.o.Dir, source.OwnName(s.prefix(), at))
	if _, err := s.run(ctx, "subvolume", "snapshot", "-r", "--", s.o.Subvolume, path); err != nil {
		return source.Point{}, err
	}
	// It must be on the disk: what is sent is taken for what was there.
	if _, err := s.run(ctx, "filesystem", "sync", path); err != nil {
		return source.Point{}, err
	}
	v, err := s.show(ctx, path)
	if err != nil {
		return source.Point{}, err
	}
	return s.point(path, v), nil
}

// Open runs btrfs send.
func (s *Source) Open(ctx context.Context, p source.Point, base *source.Point) (io.ReadCloser, error) {
	argv := []string{s.o.Program, "send"}
	if base != nil {
		argv = append(argv, "-p", base.Name)
	}
	return process.Start(ctx, s.o.Program+" send", append(argv, p.Name)...)
}

// Keep does nothing: btrfs builds on snapshots, and they are there.
func (s *Source) Keep(context.Context, source.Point) error { return nil }

// Release deletes a snapshot of this set's own.
func (s *Source) Release(ctx context.Context, p source.Point) error {
	if !s.own(p.Name) {
		return nil
	}
	if _, err := os.Lstat(p.Name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err := s.run(ctx, "subvolume", "delete", "--", p.Name)
	return err
}

// Receiver is a directory that snapshots are received into, under their names.
type Receiver struct{ program, dir string }

var _ source.Receiver = (*Receiver)(nil)

// NewReceiver makes a receiver into a directory. An empty program is btrfs.
func NewReceiver(dir, prog string) (*Receiver, error) {
	if prog == "" {
		prog = "btrfs"
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory to receive into", dir)
	}
	return &Receiver{prog, dir}, nil
}

// Receive runs btrfs receive. A subvolume that it leaves unfinished has no received UUID and is not read-only.
func (r *Receiver) Receive(ctx context.Context, in io.Reader, _ bool) error {
	return process.Feed(ctx, in, r.program+" receive", r.program, "receive", r.dir)
}
