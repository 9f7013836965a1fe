package glacierserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/snapshot"
)

var (
	errNoVault = errors.New("no such vault")
	errFound   = errors.New("found")
)

// vault is one vault that is served: the store, and what it does not hold.
type vault struct {
	name  string
	store *localdir.Store
	dir   string // of its state
	clock *Clock
	made  time.Time

	// use is held shared while an archive comes to be, and alone by whoever deletes the vault.
	use     sync.RWMutex
	deleted bool

	mu     sync.Mutex // for what follows
	st     vaultState
	ticked time.Time // the last day's end for which an inventory was considered
	jobs   []*job    // by initiation
	names  map[string]string
}

// vaultState is the file vault.json.
type vaultState struct {
	Vault         string            `json:"vault"` // the store's own id: state of another vault of this name is not this one's
	Tags          map[string]string `json:"tags,omitempty"`
	AccessPolicy  *string           `json:"access_policy,omitempty"`
	Lock          *vaultLock        `json:"lock,omitempty"`
	Notifications *notifications    `json:"notifications,omitempty"`
	Inventory     *inventory        `json:"inventory,omitempty"`
	Dirty         bool              `json:"dirty"` // something was written since the inventory
	Jobs          int64             `json:"jobs"`  // how many were initiated
}

func (v *vault) save() error { return saveJSON(filepath.Join(v.dir, "vault.json"), v.st) }

// get is the vault of that name. errNoVault: there is none.
func (s *Server) get(name string) (*vault, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.getLocked(name)
}

func (s *Server) getLocked(name string) (*vault, error) {
	root := filepath.Join(s.o.Root, name)
	if !localdir.IsVault(root) {
		delete(s.vaults, name)
		return nil, errNoVault
	}
	if v := s.vaults[name]; v != nil {
		return v, nil
	}
	store, err := localdir.Open(root, localdir.Options{Now: s.o.Clock.orReal})
	if err != nil {
		return nil, err
	}
	v := &vault{name: name, store: store, dir: filepath.Join(s.o.Root, stateDir, "vaults", name), clock: s.o.Clock}
	if err := v.load(); err != nil {
		return nil, fmt.Errorf("vault %s: %w", name, err)
	}
	s.vaults[name] = v
	return v, nil
}

// load reads a vault's state and makes good what a kill has left of its work.
func (v *vault) load() error {
	var err error
	if v.made, err = v.store.Created(); err != nil {
		return err
	}
	if _, err := loadJSON(filepath.Join(v.dir, "vault.json"), &v.st); err != nil {
		return err
	}
	if v.st.Vault != v.store.VaultID() {
		if err := os.RemoveAll(v.dir); err != nil {
			return err
		}
		v.st = vaultState{Vault: v.store.VaultID()}
	}
	if err := durable.MkdirAll(filepath.Join(v.dir, "jobs"), dirPerm); err != nil {
		return err
	}
	// Of uploads in one request none can be under way.
	err = v.store.EndUploads(context.Background(), func(u localdir.UploadState) bool { return u.Open && isSingle(u.Upload) })
	if err != nil {
		return err
	}
	if err := v.removeStrays(); err != nil {
		return err
	}
	return v.loadJobs()
}

// removeStrays removes temporary files and inventories that are not the newest.
func (v *vault) removeStrays() error {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		old := strings.HasPrefix(e.Name(), inventoryPrefix) && (v.st.Inventory == nil || v.st.Inventory.File != e.Name())
		if old || strings.HasPrefix(e.Name(), durable.TempMark) {
			if err := os.Remove(filepath.Join(v.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// list is the names of all vaults, sorted.
func (s *Server) list() ([]string, error) {
	entries, err := os.ReadDir(s.o.Root)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if checkVaultName(e.Name()) == nil && localdir.IsVault(filepath.Join(s.o.Root, e.Name())) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func (q *request) createVault() error {
	if q.v == nil {
		if err := q.makeVault(); err != nil {
			return err
		}
	}
	q.header("Location", q.location(""))
	return q.empty(http.StatusCreated)
}

func (q *request) makeVault() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	names, err := q.list()
	if err != nil {
		return err
	}
	if slices.Contains(names, q.vaultName) {
		return nil
	}
	if len(names) >= q.o.MaxVaults {
		return limitExceeded("The account has %d vaults, and cannot have more", len(names))
	}
	_, err = localdir.Create(filepath.Join(q.o.Root, q.vaultName), localdir.Options{Now: q.o.Clock.orReal})
	if errors.Is(err, coldstore.ErrExists) {
		return nil
	}
	return err
}

func (q *request) deleteVault() error {
	if q.v != nil {
		if err := q.removeVault(); err != nil {
			return err
		}
	}
	return q.empty(http.StatusNoContent)
}

func (q *request) removeVault() error {
	v := q.v
	q.mu.Lock()
	defer q.mu.Unlock()
	v.use.Lock()
	defer v.use.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.deleted {
		return nil
	}
	_, err := v.store.List(q.r.Context(), func(coldstore.Archive) error { return errFound })
	full := errors.Is(err, errFound) || errors.Is(err, coldstore.ErrIntegrity)
	if err != nil && !full {
		return err
	}
	if full || v.st.Dirty || v.st.Inventory != nil && v.st.Inventory.Archives > 0 {
		return invalid("Vault not empty or recently written to: %s", q.arn(v.name))
	}
	// First out of sight, at once; what is left then is removed here or by the next start.
	grave := filepath.Join(q.o.Root, stateDir, "deleted")
	if err := durable.MkdirAll(grave, dirPerm); err != nil {
		return err
	}
	if err := durable.Rename(filepath.Join(q.o.Root, v.name), filepath.Join(grave, rand.Text())); err != nil {
		return err
	}
	v.deleted = true
	delete(q.vaults, v.name)
	if err := durable.SyncDir(q.o.Root); err != nil {
		return err
	}
	if err := os.RemoveAll(v.dir); err != nil {
		return err
	}
	return os.RemoveAll(grave)
}

// vaultInfo is what DescribeVault and ListVaults tell.
type vaultInfo struct {
	VaultARN          string
	VaultName         string
	CreationDate      string
	LastInventoryDate *string
	NumberOfArchives  int64
	SizeInBytes       int64
}

func (q *request) info(v *vault) vaultInfo {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := vaultInfo{VaultARN: q.arn(v.name), VaultName: v.name, CreationDate: stamp(v.made)}
	if inv := v.st.Inventory; inv != nil {
		date := stamp(inv.Date)
		i.LastInventoryDate, i.NumberOfArchives, i.SizeInBytes = &date, inv.Archives, inv.Bytes
	}
	return i
}

func (q *request) describeVault() error {
	q.json(http.StatusOK, q.info(q.v))
	return nil
}

func (q *request) listVaults() error {
	limit, err := q.limit(10)
	if err != nil {
		return err
	}
	from := ""
	if marker := q.r.URL.Query().Get("marker"); marker != "" {
		_, name, ok := strings.Cut(marker, ":vaults/")
		if !ok || checkVaultName(name) != nil {
			return invalid("Invalid marker: %s", marker)
		}
		from = name
	}
	names, err := q.list()
	if err != nil {
		return err
	}
	at, _ := slices.BinarySearch(names, from)
	names = names[at:]
	var out struct {
		Marker    *string
		VaultList []vaultInfo
	}
	out.VaultList = []vaultInfo{}
	for i, name := range names {
		if i == limit {
			next := q.arn(name)
			out.Marker = &next
			break
		}
		v, err := q.get(name)
		if errors.Is(err, errNoVault) {
			continue
		}
		if err != nil {
			return err
		}
		if err := v.tick(q.r.Context(), q.now); err != nil {
			return err
		}
		out.VaultList = append(out.VaultList, q.info(v))
	}
	q.json(http.StatusOK, out)
	return nil
}

// limit is the parameter of that name: between 1 and most, which is also what it is when it is not given.
func (q *request) limit(most int) (int, error) {
	text := q.r.URL.Query().Get("limit")
	if text == "" {
		return most, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, invalid("Invalid limit: %s. It must be between 1 and %d.", text, most)
	}
	return n, nil
}

// isSingle says whether an upload is that of one request, which nobody may see until it is complete. Those that
// clients begin have no name, and those that other programs make in the vault have names with more in them.
func isSingle(u coldstore.Upload) bool { return snapshot.ValidID(u.Name) }

// touch notes, before it is acknowledged, that something is written to the vault.
func (v *vault) touch() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.st.Dirty {
		return nil
	}
	v.st.Dirty = true
	return v.save()
}

// archive finds the store's name of an archive. errBadID: the id is none of this vault.
func (v *vault) archive(ctx context.Context, id string) (string, error) {
	name, long, err := parseID(v.store.VaultID(), archiveID, id)
	if err != nil || !long {
		return name, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if found := v.names[id]; found != "" {
		return found, nil
	}
	// The names that are too long for an id are learned from the list.
	names := map[string]string{}
	_, err = v.store.List(ctx, func(a coldstore.Archive) error {
		if wire := v.wire(a.ID); !pack(make([]byte, archiveBytes-tagBytes-1), a.ID) {
			names[wire] = a.ID
		}
		return nil
	})
	if err != nil && !errors.Is(err, coldstore.ErrIntegrity) {
		return "", err
	}
	v.names = names
	if found := names[id]; found != "" {
		return found, nil
	}
	return "", coldstore.ErrNotFound
}

// wire is the id of an archive as clients know it.
func (v *vault) wire(archive string) string { return wireID(v.store.VaultID(), archiveID, archive) }
