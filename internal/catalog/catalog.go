// Package catalog is the database of sets, snapshots, volumes and entries, and
// the journal of what is under way. One SQL text over database/sql; the
// databases it runs on are adapters (catalog/sqlite). It knows nothing of
// vaults' contents or of files: losing it loses time, never data.
//
// Safe for concurrent use by several goroutines and processes.
package catalog

import (
	"context"
	"crypto/ed25519"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// DB is an open catalog. Not found is a failure of kind failure.NotFound.
type DB struct{}

func (d *DB) Close() error { panic("not yet") }

// Set is a named thing to back up.
type Set struct {
	ID      string // ULID, made once
	Name    string // unique together with Host
	Label   string // the name at creation
	Host    string
	Kind    string // "tree"
	Vault   string // URL of the vault its snapshots go to
	Root    string // the absolute path an implicit set is bound to; empty for a configured one
	Created time.Time
}

func (d *DB) PutSet(ctx context.Context, s Set) error             { panic("not yet") } // inserts, or updates by ID
func (d *DB) Sets(ctx context.Context) ([]Set, error)             { panic("not yet") } // by name, host
func (d *DB) SetByID(ctx context.Context, id string) (Set, error) { panic("not yet") }

// State of a snapshot in the catalog.
type State string

const (
	Running State = "running" // an attempt: its manifest is not stored
	Stored  State = "stored"
)

// Snapshot is one run's result, or an attempt at one. At most one of a set is Running.
type Snapshot struct {
	ID           string
	SetID        string
	N            uint64
	Kind         snapshot.Kind
	Base         string
	ChainN       uint64 // N of the chain's full snapshot
	Chain        string // id of the chain's full snapshot
	At           time.Time
	Made         time.Time
	State        State
	Header       manifest.Header // as it is, or will be, in its manifest
	Params       string          // what must be unchanged for the attempt to go on
	Vault        string          // URL
	ManifestHash manifest.Hash
	ManifestPart ArchiveRef // the archive the manifest is stored as
	Totals       Totals
}

// ArchiveRef is a stored archive.
type ArchiveRef struct {
	Archive  string
	Size     int64
	TreeHash [32]byte
}

// Totals of a snapshot, for lists.
type Totals struct {
	Entries  int64 // in the whole tree
	Bytes    int64 // logical size of the whole tree
	Changed  int64 // entries new or changed in this snapshot
	Deleted  int64
	Raw      int64 // bytes of this snapshot's stream
	Stored   int64 // bytes of its volumes in the vault, manifest included
	Problems int64
}

// Begin records a new attempt; a Running one of the set must have been discarded or stored before.
func (d *DB) Begin(ctx context.Context, s Snapshot) error { panic("not yet") }

// Discard forgets a Running attempt: its volumes and entries, and what it ended.
// Volumes it had stored are returned: they are orphans in the vault.
func (d *DB) Discard(ctx context.Context, id string) ([]manifest.Volume, error) { panic("not yet") }

func (d *DB) Snapshot(ctx context.Context, id string) (Snapshot, error) { panic("not yet") }

// Snapshots of a set, Running ones included, by N.
func (d *DB) Snapshots(ctx context.Context, setID string) ([]Snapshot, error) { panic("not yet") }

// FinishStored makes an attempt a snapshot: one transaction.
func (d *DB) FinishStored(ctx context.Context, id string, h manifest.Hash, ref ArchiveRef, t Totals) error {
	panic("not yet")
}

// DropSnapshot removes a stored snapshot that is the last of its chain (damaged recover, prune later).
func (d *DB) DropSnapshot(ctx context.Context, id string) error { panic("not yet") }

// Checkpoint says how far an attempt's stream got at the end of a volume.
type Checkpoint struct {
	Volume int // all volumes up to this one are stored
	// Path is the last path all of whose stream lies in those volumes, or, when Done > 0, the
	// file in the middle of which the volume ends.
	Path    string
	Started bool   // false: no path is complete yet
	InFile  bool   // the volume ends inside Path's member
	State   []byte // what the source needs to go on inside Path; opaque here
}

// Pending is an upload about to be completed (the write-ahead of design "stores").
type Pending struct {
	Snap     string
	Volume   manifest.Volume // N 0: the manifest itself
	UploadID string
	Name     string
	Check    Checkpoint    // becomes the attempt's checkpoint when the volume is stored
	Hash     manifest.Hash // for the manifest
	Totals   Totals        // for the manifest
}

// PutPending writes p down durably (fsynced), in one transaction with all entries put before.
func (w *EntryWriter) PutPending(ctx context.Context, p Pending) error { panic("not yet") }

// VolumeStored turns a pending volume into a stored one under its archive id, and sets the checkpoint.
func (d *DB) VolumeStored(ctx context.Context, snap string, n int, archive string) error {
	panic("not yet")
}

// DropPending forgets a pending upload that never happened.
func (d *DB) DropPending(ctx context.Context, snap string, n int) error { panic("not yet") }

// PendingOf lists an attempt's pending uploads.
func (d *DB) PendingOf(ctx context.Context, snap string) ([]Pending, error) { panic("not yet") }

// CheckpointOf returns an attempt's checkpoint; the zero one when no volume is stored.
func (d *DB) CheckpointOf(ctx context.Context, snap string) (Checkpoint, error) { panic("not yet") }

// Rewind throws away what the attempt recorded of entries, deletions and problems after its checkpoint.
func (d *DB) Rewind(ctx context.Context, snap string) error { panic("not yet") }

// Volumes of a snapshot, by number, without Leaves; Volume has them.
func (d *DB) Volumes(ctx context.Context, snap string) ([]manifest.Volume, error) { panic("not yet") }
func (d *DB) Volume(ctx context.Context, snap string, n int) (manifest.Volume, error) {
	panic("not yet")
}

// PutVolume records a stored volume as a manifest tells of it (recover).
func (d *DB) PutVolume(ctx context.Context, snap string, v *manifest.Volume) error { panic("not yet") }

// EntryWriter records an attempt's entries, in path order, in transactions of
// thousands of rows. Safe for concurrent use. What was put is seen by others after Flush, PutPending or Close.
type EntryWriter struct{}

func (d *DB) EntryWriter(ctx context.Context, snap string) (*EntryWriter, error) { panic("not yet") }

// Put records e as new or changed in this snapshot: a row valid from it on, ending the one before.
func (w *EntryWriter) Put(ctx context.Context, e *snapshot.Entry) error { panic("not yet") }

// Refresh updates only what is local (CTime, Dev, Ino) of an unchanged entry, so that the next run need not look again.
func (w *EntryWriter) Refresh(ctx context.Context, e *snapshot.Entry) error { panic("not yet") }

// Delete ends the row of path.
func (w *EntryWriter) Delete(ctx context.Context, path string) error                { panic("not yet") }
func (w *EntryWriter) Problem(ctx context.Context, p snapshot.Problem) error        { panic("not yet") }
func (w *EntryWriter) Flush(ctx context.Context) error                              { panic("not yet") }
func (d *DB) Problems(ctx context.Context, snap string) ([]snapshot.Problem, error) { panic("not yet") }

// Row is an entry as a comparison needs it; Entry decodes the rest.
type Row struct {
	Path         string
	Type         snapshot.Type
	Mode         uint32
	UID, GID     uint32
	Size         int64
	MTime, CTime snapshot.Time
	Dev, Ino     uint64
}

// Entry decodes the whole entry. Valid until the cursor's next Next.
func (r *Row) Entry() (snapshot.Entry, error) { panic("not yet") }

// Cursor walks a snapshot's entries in path order, a page at a time, so that no
// long transaction stands in the way of the journal.
type Cursor struct{}

// Rows begins at the first path after `after`, or the very first when it is empty.
func (d *DB) Rows(ctx context.Context, snap string, after string) (*Cursor, error) { panic("not yet") }

// Next returns nil at the end. The row is valid until the next call.
func (c *Cursor) Next(ctx context.Context) (*Row, error) { panic("not yet") }
func (c *Cursor) Close() error                           { panic("not yet") }

// Order of a query's answer.
type Order int

const (
	ByPath     Order = iota
	ByPathDesc       // children before their directory
	ByContent        // by content address, then LinkGroup, then path: the order in which a vault is read
)

// Query selects entries of one snapshot. The zero value is all, by path.
type Query struct {
	Under []string // these paths and all below them; empty: everything
	Order Order
}

// Entries calls fn for each entry of the tree as it was in snap. The entry is fn's to keep. fn may
// call other methods of the DB. Bounded memory for any number of entries.
func (d *DB) Entries(ctx context.Context, snap string, q Query, fn func(snapshot.Entry) error) error {
	panic("not yet")
}

// Changes calls fn, in path order, for what is new, changed (e) or deleted (e == nil)
// in snap against its base; for a full, every entry.
func (d *DB) Changes(ctx context.Context, snap string, fn func(path string, e *snapshot.Entry) error) error {
	panic("not yet")
}

// Find calls fn for every version of entries (Stored snapshots) for which match says yes. first and last are the sequence
// numbers of the first and the last snapshot of the chain that have it as it is.
func (d *DB) Find(ctx context.Context, setID string, match func(path string) bool, fn func(e snapshot.Entry, chain string, first, last uint64) error) error {
	panic("not yet")
}

// SavedRetrieval is a retrieval under way or ready, kept so that a later run goes on with it.
type SavedRetrieval struct {
	Vault string
	coldstore.Retrieval
}

func (d *DB) PutRetrieval(ctx context.Context, r SavedRetrieval) error { panic("not yet") } // by vault and token
func (d *DB) Retrievals(ctx context.Context, vault, archive string) ([]coldstore.Retrieval, error) {
	panic("not yet")
}
func (d *DB) DropRetrieval(ctx context.Context, vault, token string) error { panic("not yet") }

// Trusted signers: public keys whose manifests are believed, besides those of the key file.
func (d *DB) Trust(ctx context.Context, key ed25519.PublicKey, note string) error { panic("not yet") }
func (d *DB) Trusted(ctx context.Context) ([]ed25519.PublicKey, error)            { panic("not yet") }

// Run is one run of a command, for `firn log`.
type Run struct {
	ID      string
	Command string
	Set     string // name; may be empty
	Started time.Time
	Ended   time.Time // zero: still running, or killed
	Exit    int
	Summary string // one line
}

func (d *DB) PutRun(ctx context.Context, r Run) error                        { panic("not yet") } // inserts or updates by ID
func (d *DB) Runs(ctx context.Context, set string, limit int) ([]Run, error) { panic("not yet") } // newest first; set "" = all
func (d *DB) Lease(ctx context.Context, setID, holder string, ttl time.Duration, now time.Time) (bool, error) {
	panic("not yet")
}                                                                     // takes or renews; false: another holds it
func (d *DB) Unlease(ctx context.Context, setID, holder string) error { panic("not yet") }
