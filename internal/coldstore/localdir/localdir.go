// Package localdir is the vault in a directory, dir:/path: the embedded
// default, and a whole vault for a disk or a NAS. It keeps archives as plain
// files that people can read without Firn, and behaves as strictly as a real
// vault does. It knows nothing of what archives contain.
//
// The layout is described in readme.txt, which lies in every vault, and in
// docs/adr/0010-dir-vault-layout.md. An archive exists from the instant in
// which its meta file does; everything before that can be cut short by kill -9 or
// a power failure and leaves no archive.
//
// Several processes may use one vault at once. Short sections that begin or end an upload
// or delete an archive are held apart by a lock on the marker file; on a file system
// without locks only within one process.
package localdir

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// Version is the version of the layout that is written here.
const Version = 1

// DefaultExpiry is how long a delayed retrieval stays readable, as in the vault API.
const DefaultExpiry = 24 * time.Hour

const (
	markerName = "firn-vault.json"
	readmeName = "README.txt"

	archivesDir   = "archives"
	metaDir       = "meta"
	uploadsDir    = "uploads"
	retrievalsDir = "retrievals"
	deletingDir   = "deleting"

	dirPerm  = 0o700
	filePerm = 0o600
)

//go:embed readme.txt
var readme []byte

// Options say how a vault behaves. The zero value is a warm vault.
type Options struct {
	// Now tells the time, the only one that is written or compared. Nil: time.Now.
	Now func() time.Time
	// Delay is how long a retrieval takes: played, the data is here. 0: ready at once.
	Delay time.Duration
	// Expiry is how long a delayed retrieval stays readable after it is ready. 0: DefaultExpiry.
	Expiry time.Duration
}

// Store is a vault in a directory.
type Store struct {
	root string
	id   string
	o    Options

	commit sync.Mutex // held, with the marker's lock, where archives and uploads begin and end

	mu      sync.Mutex
	uploads map[string]*upload // those that parts were put to, by id

	streaming streams // parts that come in as they are read, see PutPartFrom

	// step, when set, is called at every instant of a change at which a kill must be
	// survived; tests end the operation there.
	step func(at string)
}

var (
	_ coldstore.Store  = (*Store)(nil)
	_ coldstore.Stater = (*Store)(nil)
)

// ErrBroken says that what makes a directory a vault is damaged; the archives in it may be whole.
var ErrBroken = errors.New("the vault itself is damaged")

func broken(format string, args ...any) error {
	return failure.Errorf(failure.Damaged, "%w: %w", ErrBroken, coldstore.Damagef(format, args...))
}

// directories are those of a vault.
func directories() []string {
	return []string{archivesDir, metaDir, uploadsDir, retrievalsDir, deletingDir}
}

// marker is what makes a directory a vault.
type marker struct {
	Format  int       `json:"format"`
	Vault   string    `json:"vault"` // a ULID
	Created time.Time `json:"created"`
}

// Create makes a vault at root, an absolute path, and the directories that lead there.
// ErrExists where there is one already; ErrInvalid where there is
// anything else, except what a Create that was cut short leaves behind.
func Create(root string, o Options) (*Store, error) {
	s, err := create(root, o)
	if err != nil {
		return nil, fmt.Errorf("create vault %s: %w", root, err)
	}
	return s, nil
}

func create(root string, o Options) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, failure.Errorf(failure.Usage, "the path is not absolute: %w", coldstore.ErrInvalid)
	}
	root = filepath.Clean(root)
	o = o.withDefaults()
	if err := durable.MkdirAll(root, dirPerm); err != nil {
		return nil, err
	}
	if err := creatable(root); err != nil {
		return nil, err
	}
	for _, dir := range directories() {
		if err := durable.MkdirAll(filepath.Join(root, dir), dirPerm); err != nil {
			return nil, err
		}
	}
	if err := durable.WriteFile(filepath.Join(root, readmeName), readme, filePerm); err != nil {
		return nil, err
	}
	id, err := snapshot.NewID(o.Now(), rand.Reader)
	if err != nil {
		return nil, err
	}
	text, err := encode(marker{Format: Version, Vault: id, Created: o.Now().UTC()})
	if err != nil {
		return nil, err
	}
	err = durable.CreateExclusive(filepath.Join(root, markerName), text, filePerm)
	if errors.Is(err, fs.ErrExist) {
		return nil, coldstore.ErrExists
	}
	if err != nil {
		return nil, err
	}
	return newStore(root, id, o), nil
}

// creatable says whether a vault may be made at root: in an empty directory, or
// in one that holds nothing but what create itself begins with.
func creatable(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == markerName {
			return coldstore.ErrExists
		}
	}
	for _, e := range entries {
		name := e.Name()
		if isTemp(name) || name == readmeName || name == "lost+found" { // the latter is in every fresh ext4
			continue
		}
		if slices.Contains(directories(), name) {
			below, err := os.ReadDir(filepath.Join(root, name))
			if err != nil {
				return err
			}
			if len(below) == 0 {
				continue
			}
		}
		return fmt.Errorf("the directory is not empty and is no vault (%s is in it): %w", name, coldstore.ErrInvalid)
	}
	return nil
}

// Open opens the vault at root. ErrNotFound where none is: a disk that
// is not mounted is an error, and never an empty vault. ErrBroken where one is, in pieces. It writes
// nothing, but for directories that are mostly empty and were not copied with the rest.
func Open(root string, o Options) (*Store, error) {
	s, err := open(root, o)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", root, err)
	}
	return s, nil
}

func open(root string, o Options) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, failure.Errorf(failure.Usage, "the path is not absolute: %w", coldstore.ErrInvalid)
	}
	root = filepath.Clean(root)
	text, err := os.ReadFile(filepath.Join(root, markerName))
	if isAbsent(err) {
		if _, err := os.Stat(filepath.Join(root, archivesDir)); err == nil {
			return nil, broken("%s is missing, and %s is there", markerName, archivesDir)
		}
		return nil, failure.Errorf(failure.NotFound, "no %s there: %w", markerName, coldstore.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	var m marker
	if err := json.Unmarshal(text, &m); err != nil || m.Format < 1 || !snapshot.ValidID(m.Vault) {
		return nil, broken("%s is damaged", markerName)
	}
	if m.Format > Version {
		return nil, fmt.Errorf("the vault has format %d, which needs a newer Firn: %w", m.Format, coldstore.ErrUnsupported)
	}
	for _, dir := range directories() {
		_, err := os.Stat(filepath.Join(root, dir))
		switch {
		case err == nil:
		case isAbsent(err) && dir != archivesDir && dir != metaDir:
			// Mostly empty, and some programs do not copy empty directories. Where it cannot be made,
			// reading works without.
			_ = os.Mkdir(filepath.Join(root, dir), dirPerm)
		case isAbsent(err):
			// Made anew, it would be empty, and the vault would seem to be.
			return nil, broken("its directory %s is missing", dir)
		default:
			return nil, err
		}
	}
	return newStore(root, m.Vault, o.withDefaults()), nil
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Expiry <= 0 {
		o.Expiry = DefaultExpiry
	}
	o.Delay = max(o.Delay, 0)
	return o
}

func newStore(root, id string, o Options) *Store {
	return &Store{root: root, id: id, o: o, uploads: map[string]*upload{}}
}

// VaultID is the vault's own id, a ULID made with it.
func (s *Store) VaultID() string { return s.id }

// Root is the vault's directory.
func (s *Store) Root() string { return s.root }

// Traits are those of Amazon Glacier's vaults, but for names and time.
func (s *Store) Traits() coldstore.Traits {
	return coldstore.Traits{
		Scheme:      Scheme,
		Granularity: treehash.LeafSize,
		Warm:        s.o.Delay == 0,
		NamesKept:   true,
		MinPart:     minPart,
		MaxPart:     maxPart,
		MaxParts:    maxParts,
		MaxArchive:  maxParts * maxPart,
	}
}

// now has no monotonic clock: it is what a file can hold.
func (s *Store) now() time.Time { return s.o.Now().UTC().Round(0) }

func (s *Store) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}

// lock holds off every other beginning and end of archives and uploads, those of
// other processes too, until the function returned is called.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	s.commit.Lock()
	f, err := os.OpenFile(filepath.Join(s.root, markerName), os.O_RDWR, 0)
	if err != nil {
		s.commit.Unlock()
		if isAbsent(err) {
			return nil, s.gone()
		}
		return nil, err
	}
	if err := durable.LockFile(ctx, f, durable.Exclusive); err != nil {
		f.Close()
		s.commit.Unlock()
		return nil, err
	}
	return func() {
		f.Close()
		s.commit.Unlock()
	}, nil
}

// notFound is the error for something that is not there: ErrNotFound, unless
// the whole vault has gone, of which nothing can be concluded.
func (s *Store) notFound() error {
	if _, err := os.Lstat(filepath.Join(s.root, markerName)); err != nil {
		if isAbsent(err) {
			return s.gone()
		}
		return err
	}
	return coldstore.ErrNotFound
}

func (s *Store) gone() error {
	return failure.Errorf(failure.NotFound, "the vault %s is gone: no %s there any more (is it still mounted?)", s.root, markerName)
}

// isAbsent says that a path does not lead to anything.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// encode makes the JSON of small files that people may want to read.
func encode(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}
