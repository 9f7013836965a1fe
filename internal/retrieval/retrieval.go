// Package retrieval asks vaults to make archives readable, remembers what it
// asked for so that a later run goes on with it, and reads volumes and
// manifests through what has become ready. It owns when something is asked for
// anew and what counts as damage, and knows nothing of files.
package retrieval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// Journal is where retrievals are remembered between runs.
type Journal interface {
	PutRetrieval(ctx context.Context, r catalog.SavedRetrieval) error
	Retrievals(ctx context.Context, vault, archive string) ([]coldstore.Retrieval, error)
	DropRetrieval(ctx context.Context, vault, token string) error
}

var _ Journal = (*catalog.DB)(nil)

// Codecs open what is stored, by the names that manifests and descriptions give.
type Codecs struct {
	// Decryptor opens a cipher with the keys at hand; the Geometry is the cipher's.
	Decryptor func(name string) (codec.Decryptor, codec.Geometry, error)
	// Compressor is for frames.
	Compressor func(name string) (codec.Compressor, error)
	// Decompress is for a whole stream without a list of frames: a manifest.
	Decompress func(name string, r io.Reader) (io.ReadCloser, error)
}

// Options say what to ask, and how. Store, Journal, Vault, Codecs and Now are needed.
type Options struct {
	Store   coldstore.Retriever
	Traits  coldstore.Traits
	Journal Journal
	Vault   string // URL, as in the catalog
	Codecs  Codecs
	Now     func() time.Time

	Tier     coldstore.Tier   // empty: the store's default
	Days     int              // how long to keep readable; 0: the store's default
	Wait     bool             // wait for what is not ready, instead of failing
	Once     bool             // what is read counts for this run only: a later one reads it again
	Poll     time.Duration    // between looks while waiting, at first; 0: 30 s. It doubles up to 10 min
	Transfer transfer.Options // Retries and Sleep count here too

	// Approve is told what is about to be asked for, before it is, and stops it with an error; nil: nobody
	// needs to know. It is not called for warm vaults, nor for what was asked for before.
	Approve func(ctx context.Context, b Bill) error
	Pace    cost.Pace // of requests; the zero Pace: none

	Damaged func(transfer.Damage)     // leaves that are wrong in the vault; may be nil; from any goroutine
	Read    func(bytes int64)         // bytes read from the vault; may be nil; from any goroutine
	Waiting func(ready, all int)      // how the waiting stands; may be nil
	Asked   func(coldstore.Retrieval) // each new request; may be nil
}

// Desk makes and keeps retrievals. It is for one goroutine.
type Desk struct {
	o       Options
	pending map[string]coldstore.Retrieval // by token
	all     int                            // asked for or found, in this run
	wanted  []want                         // of the next Order
	kept    []want                         // those and what was found, where there is a pace
	queue   *queue                         // nil: everything is asked for at once
	teller  coldstore.ReadyTeller          // the store, where it is one; else nil
	slow    map[string]bool                // archives that were asked for in a slower tier than is wished for now
	sizes   map[string]int64               // of whole archives, in bytes, as far as told
	window  []time.Time                    // of requests within the pace's time, oldest first; nil: not known yet
	at      time.Time                      // the latest time that the pace has seen
}

const (
	firstPoll = 30 * time.Second
	maxPoll   = 10 * time.Minute
)

// New makes a Desk.
func New(o Options) *Desk {
	if o.Poll <= 0 {
		o.Poll = firstPoll
	}
	if o.Transfer.Sleep == nil {
		o.Transfer.Sleep = transfer.Sleep
	}
	teller, _ := o.Store.(coldstore.ReadyTeller)
	if o.Store != nil {
		if o.Read == nil {
			o.Read = func(int64) {}
		}
		o.Store = watched{o.Store, o}
	}
	return &Desk{o: o, pending: map[string]coldstore.Retrieval{}, sizes: map[string]int64{}, slow: map[string]bool{}, teller: teller}
}

// Ask sees to it that range want of an archive, the zero Range for all of it, is or will be
// readable: by what was asked for before where that fits and still holds, else
// by a new request, which is remembered before Ask returns. A warm store is
// just asked. coldstore.ErrNotFound: there is no such archive. Where many are asked for, Want and
// Order tell what that comes to first.
func (d *Desk) Ask(ctx context.Context, archive string, want coldstore.Range) (coldstore.Retrieval, error) {
	if err := d.ensure(ctx, archive, want); err != nil {
		return coldstore.Retrieval{}, err
	}
	if !d.o.Traits.Warm {
		r, ok, err := d.saved(ctx, archive, want)
		if err != nil || ok {
			d.note(r, ok)
			return r, err
		}
	}
	if d.free(ctx, archive) {
		return d.request(ctx, archive, want)
	}
	size := want.Size
	if want.IsWhole() {
		size = d.sizes[archive]
	}
	if err := d.approve(ctx, Bill{Tier: d.o.Tier, Requests: 1, Bytes: size, Days: d.o.Days}); err != nil {
		return coldstore.Retrieval{}, err
	}
	return d.request(ctx, archive, want)
}

func (d *Desk) note(r coldstore.Retrieval, ok bool) {
	if !ok {
		return
	}
	d.all++
	if r.Ready {
		delete(d.pending, r.Token)
	} else {
		d.pending[r.Token] = r
	}
}

// saved looks for a retrieval of an earlier run, or of this one, that has what
// is wanted: a ready one before one under way.
func (d *Desk) saved(ctx context.Context, archive string, want coldstore.Range) (coldstore.Retrieval, bool, error) {
	old, err := d.o.Journal.Retrievals(ctx, d.o.Vault, archive)
	if err != nil {
		return coldstore.Retrieval{}, false, err
	}
	var best coldstore.Retrieval
	found := false
	for _, r := range old {
		if !Covers(r.Range, want) {
			if d.old(r) {
				if err := d.forget(ctx, r); err != nil {
					return best, false, err
				}
			}
			continue
		}
		if !d.holds(r) {
			var ok bool
			if r, ok, err = d.look(ctx, r); err != nil {
				return best, false, err
			}
			if !ok {
				continue
			}
		}
		if !r.Ready && d.o.Traits.Upgrades && faster(d.o.Tier, r.Tier) {
			d.slow[archive] = true // to be asked for again, in the faster tier
			continue
		}
		if !found || r.Ready && !best.Ready {
			best, found = r, true
		}
	}
	return best, found, nil
}

// faster says that a tier that is wished for is faster than one that was asked for. No tier is no wish, and the
// usual one where it was asked for.
func faster(wish, was coldstore.Tier) bool {
	rank := map[coldstore.Tier]int{coldstore.Bulk: 1, "": 2, coldstore.Standard: 2, coldstore.Expedited: 3}
	return wish != "" && rank[wish] > rank[was]
}

// old says that a retrieval is certainly no more: no vault takes or keeps one for so long
// without having been asked to.
func (d *Desk) old(r coldstore.Retrieval) bool {
	if r.Expires.IsZero() {
		return d.o.Now().Sub(r.Requested) > 400*24*time.Hour
	}
	return !d.o.Now().Before(r.Expires)
}

// holds says that a retrieval is ready, and will be for a while.
func (d *Desk) holds(r coldstore.Retrieval) bool {
	return r.Ready && (r.Expires.IsZero() || d.o.Now().Add(time.Minute).Before(r.Expires))
}

// look asks the vault how a retrieval stands; ok is false when it is no more.
func (d *Desk) look(ctx context.Context, r coldstore.Retrieval) (coldstore.Retrieval, bool, error) {
	var now coldstore.Retrieval
	err := transfer.Retry(ctx, d.o.Transfer, func() (err error) {
		now, err = d.o.Store.CheckRetrieval(ctx, r.Token)
		return err
	})
	switch {
	case errors.Is(err, coldstore.ErrExpired) || errors.Is(err, coldstore.ErrNotFound):
		return r, false, d.forget(ctx, r)
	case err != nil:
		return r, false, fmt.Errorf("archive %s: %w", r.Archive, err)
	case now.Ready && !now.Expires.IsZero() && !d.o.Now().Before(now.Expires):
		return r, false, d.forget(ctx, r)
	}
	if now.Archive == "" {
		now.Archive = r.Archive
	}
	if now != r {
		if err := d.o.Journal.PutRetrieval(ctx, catalog.SavedRetrieval{Vault: d.o.Vault, Retrieval: now}); err != nil {
			return now, false, err
		}
	}
	return now, true, nil
}

func (d *Desk) forget(ctx context.Context, r coldstore.Retrieval) error {
	delete(d.pending, r.Token)
	return d.o.Journal.DropRetrieval(ctx, d.o.Vault, r.Token)
}

// Covers says whether what is made readable by a retrieval of have contains want.
func Covers(have, want coldstore.Range) bool {
	if have.IsWhole() {
		return true
	}
	return !want.IsWhole() && have.Offset <= want.Offset && want.Offset+want.Size <= have.Offset+have.Size
}

// Ready returns when all that was asked for is ready. If something is not, it
// waits when Options.Wait says so, else it returns failure.NotReady.
func (d *Desk) Ready(ctx context.Context) error {
	if d.queue != nil && d.queue.now == nil {
		return nil // the first wave has not begun
	}
	pause := d.o.Poll
	for {
		if d.o.Waiting != nil && d.all > 0 && !d.o.Traits.Warm {
			d.o.Waiting(d.all-len(d.pending), d.all)
		}
		if len(d.pending) == 0 {
			return nil
		}
		if !d.o.Wait {
			return failure.Errorf(failure.NotReady, "not ready yet: %d of %s", len(d.pending), units.Count(d.all, "retrieval"))
		}
		if err := d.o.Transfer.Sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, maxPoll)
		for token, r := range d.pending {
			now, ok, err := d.look(ctx, r)
			if err != nil {
				return err
			}
			if !ok { // lost meanwhile
				d.all--
				if _, err := d.Ask(ctx, r.Archive, r.Range); err != nil {
					return err
				}
				continue
			}
			if now.Ready {
				delete(d.pending, token)
			}
		}
	}
}

// IsDamage says that err is about what lies in the vault: it is missing, cut,
// or does not decode. Reading on elsewhere makes sense.
func IsDamage(err error) bool {
	for _, t := range []error{
		codec.ErrDamaged, coldstore.ErrNotFound, coldstore.ErrIntegrity, coldstore.ErrInvalid, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, t) {
			return true
		}
	}
	return failure.KindOf(err) == failure.Damaged
}

// Reason is the text of an error of reading an archive without its name, which whoever tells of it says once:
// the steps that only repeat what was read are left out.
func Reason(err error) string {
	var kept []string
	for part := range strings.SplitSeq(err.Error(), ": ") {
		_, after, names := strings.Cut(part, "archive ")
		if names && !strings.HasPrefix(part, "the archive ") && after != "" && (part == "archive "+after ||
			strings.HasPrefix(part, "read ") || strings.HasPrefix(part, "stat ") || strings.HasPrefix(part, "request ")) {
			continue
		}
		kept = append(kept, part)
	}
	switch {
	case len(kept) == 0:
		return err.Error()
	case len(kept) == 1 && errors.Is(err, coldstore.ErrNotFound):
		return "it is not in the vault"
	}
	return strings.Join(kept, ": ")
}

// Explain gives an error of reading its kind: no key, not ready, damaged.
func Explain(err error) error {
	switch {
	case err == nil || failure.KindOf(err) != failure.Failed:
		return err
	case errors.Is(err, codec.ErrNoKey):
		return failure.Wrap(failure.NoKey, err)
	case errors.Is(err, coldstore.ErrNotReady) || errors.Is(err, coldstore.ErrExpired):
		return failure.Wrap(failure.NotReady, err)
	case IsDamage(err):
		return failure.Wrap(failure.Damaged, err)
	}
	return err
}

// watched counts what is read, and forgets a retrieval that the vault did not keep as long as it had said: the
// next run asks anew, and does not believe until that time that it is there.
type watched struct {
	coldstore.Retriever
	o Options
}

func (w watched) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	rc, err := w.Retriever.OpenRetrieved(ctx, r, off, size)
	if errors.Is(err, coldstore.ErrExpired) && w.o.Journal != nil {
		err = errors.Join(err, w.o.Journal.DropRetrieval(ctx, w.o.Vault, r.Token))
	}
	if err != nil {
		return nil, err
	}
	return &countedReader{rc, w.o.Read}, nil
}

type countedReader struct {
	io.ReadCloser
	read func(int64)
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.read(int64(n))
	}
	return n, err
}
