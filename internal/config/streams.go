package config

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/source/zfs"
)

// Producer are the keys of sets that are the stream of a producer.
type Producer struct {
	Dataset       string        `toml:"dataset"`       // of ZFS
	Recursive     bool          `toml:"recursive"`     // with the datasets below
	Raw           bool          `toml:"raw"`           // encrypted data as it is
	Intermediates bool          `toml:"intermediates"` // the snapshots in between too
	Subvolume     string        `toml:"subvolume"`     // of btrfs, absolute
	SnapshotDir   string        `toml:"snapshot-dir"`  // where own snapshots of btrfs lie, absolute; empty: in the subvolume
	Snapshot      string        `toml:"snapshot"`      // "own" or "existing"; empty: own
	SnapshotMatch []string      `toml:"snapshot-match"`
	KeepLocal     time.Duration `toml:"keep-local"` // of own snapshots; 0: only what the next incremental needs
	Command       []string      `toml:"command"`
}

// Kinds of sets that are streams.
const (
	KindZFS     = "zfs"
	KindBtrfs   = "btrfs"
	KindCommand = "command"
	KindStream  = "stream" // what comes in through a pipe
)

func streamKinds() []setKind {
	common := []string{"snapshot", "snapshot-match", "keep-local"}
	return []setKind{
		{KindZFS, append([]string{"dataset", "recursive", "raw", "intermediates"}, common...), (*parser).checkZFS},
		{KindBtrfs, append([]string{"subvolume", "snapshot-dir"}, common...), (*parser).checkBtrfs},
		{KindCommand, []string{"command"}, (*parser).checkCommand},
		{KindStream, nil, func(*parser, *Set, func(string) string) {}},
	}
}

// IsStream says that the set is the stream of a producer, not files.
func (s *Set) IsStream() bool { return IsStreamKind(s.KindOf()) }

// IsStreamKind says that sets of that kind are streams of producers.
func IsStreamKind(kind string) bool {
	return slices.ContainsFunc(streamKinds(), func(k setKind) bool { return k.name == kind })
}

// Existing says that the snapshots are others'.
func (s *Set) Existing() bool { return s.Snapshot == "existing" }

func (p *parser) checkZFS(s *Set, at func(string) string) {
	if err := zfs.CheckDataset(s.Dataset); s.Dataset == "" {
		p.missing(s, at, "dataset")
	} else if err != nil {
		p.fault(at("dataset"), "%v", err)
	}
	p.checkSnapshots(s, at)
	for i, m := range s.SnapshotMatch {
		if _, err := path.Match(m, ""); err != nil || m == "" || strings.ContainsAny(m, "/@#") {
			p.fault(index(at("snapshot-match"), i), "%q is not a pattern of what stands behind the @ (autosnap_*_daily)", m)
		}
	}
}

func (p *parser) checkBtrfs(s *Set, at func(string) string) {
	switch {
	case s.Subvolume != "":
		s.Subvolume = p.absPath(at("subvolume"), s.Subvolume)
	case !s.Existing():
		p.missing(s, at, "subvolume")
	case len(s.SnapshotMatch) == 0:
		p.missing(s, at, "snapshot-match")
	}
	if s.SnapshotDir != "" {
		s.SnapshotDir = p.absPath(at("snapshot-dir"), s.SnapshotDir)
	}
	p.checkSnapshots(s, at)
	for i := range s.SnapshotMatch {
		key := index(at("snapshot-match"), i)
		s.SnapshotMatch[i] = p.absPath(key, s.SnapshotMatch[i])
		if _, err := filepath.Match(s.SnapshotMatch[i], ""); err != nil {
			p.fault(key, "%q is not a pattern", s.SnapshotMatch[i])
		}
	}
	if s.Existing() && len(s.SnapshotMatch) == 0 && s.Subvolume != "" {
		p.missing(s, at, "snapshot-match")
	}
}

func (p *parser) checkCommand(s *Set, at func(string) string) {
	switch {
	case len(s.Command) == 0:
		p.missing(s, at, "command")
	case s.Command[0] == "":
		p.fault(index(at("command"), 0), "is empty")
	case slices.ContainsFunc(s.Command, func(a string) bool { return strings.ContainsRune(a, 0) }):
		p.fault(at("command"), "has a NUL in it")
	}
}

// checkSnapshots checks what zfs and btrfs have in common.
func (p *parser) checkSnapshots(s *Set, at func(string) string) {
	switch s.Snapshot {
	case "", "own":
		if len(s.SnapshotMatch) > 0 {
			p.fault(at("snapshot-match"), "belongs to snapshot = \"existing\"")
		}
	case "existing":
		if s.KeepLocal > 0 {
			p.fault(at("keep-local"), "belongs to own snapshots; others' are never removed")
		}
	default:
		p.fault(at("snapshot"), "%q: must be own or existing", s.Snapshot)
	}
}

// missing is the fault that a set has not what its kind needs.
func (p *parser) missing(s *Set, at func(string) string, key string) {
	if p.good(at(key)) {
		p.fault("set."+s.Name, "has no %s", key)
	}
}
