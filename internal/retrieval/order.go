package retrieval

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
)

// Bill is what is about to be asked for.
type Bill struct {
	Tier     coldstore.Tier // empty: the store's default
	Requests int64
	Bytes    int64 // made readable; of an archive whose size nobody told, 0
	Unknown  int64 // how many of the requests are for archives whose size nobody told
	Days     int   // how long it stays readable, where one can choose; 0: the store's default
}

// want is one request that is going to be made.
type want struct {
	archive string
	r       coldstore.Range
	size    int64
	free    bool // it can be read at once, at no price
}

// Want notes that range r of an archive, the zero Range for all of it, is to be readable; size is the
// number of bytes of that. Nothing is asked for before Order. What was asked for before counts as found.
// Of a warm store nothing is noted: it is asked when it is read.
func (d *Desk) Want(ctx context.Context, archive string, r coldstore.Range, size int64) error {
	if d.o.Traits.Warm {
		return nil
	}
	if r.IsWhole() {
		d.sizes[archive] = size
	}
	have, ok, err := d.saved(ctx, archive, r)
	if err != nil {
		return err
	}
	d.note(have, ok)
	w := want{archive: archive, r: r, size: size}
	if !d.o.Pace.Unlimited() {
		d.kept = append(d.kept, w)
	}
	if !ok {
		w.free = d.free(ctx, archive)
		d.wanted = append(d.wanted, w)
	}
	return nil
}

// free says that an archive can be read at once and at no price, as manifests can in some vaults.
func (d *Desk) free(ctx context.Context, archive string) bool {
	if d.teller == nil {
		return false
	}
	free, err := d.teller.ReadableNow(ctx, archive)
	return err == nil && free // an error comes again with the request
}

// Order asks for all that was wanted and not found, after Options.Approve was told how much that is, and no
// faster than Options.Pace. refused, if not nil, is told of an archive that the vault cannot
// give (IsDamage); the others are asked for all the same unless it returns an error. failure.NotReady:
// the pace does not let all of it out now, and Options.Wait is not set; ask again later.
//
// What the pace lets out so slowly that the first of it would not be readable any more when the last is, is not asked for
// now but in waves: by Ask and Open, which come to it in the order in which it was wanted, and then wait, or return
// failure.NotReady, as Ready does. refused is not told of what is met then: those return it.
func (d *Desk) Order(ctx context.Context, refused func(archive string, err error) error) error {
	wanted, kept := d.wanted, d.kept
	d.wanted, d.kept = nil, nil
	if waves, err := d.inWaves(ctx, wanted, kept); waves || err != nil {
		return err
	}
	if len(wanted) == 0 {
		return nil
	}
	if err := d.approve(ctx, d.bill(wanted)); err != nil {
		return err
	}
	_, err := d.send(ctx, wanted, refused, false)
	return err
}

// bill is what asking for all that is wanted comes to.
func (d *Desk) bill(wanted []want) Bill {
	b := Bill{Tier: d.o.Tier, Days: d.o.Days}
	for _, w := range wanted {
		if !w.free {
			b.Requests++
			b.Bytes += w.size
			if w.size == 0 {
				b.Unknown++
			}
		}
	}
	return b
}

// send asks for what is wanted, no faster than the pace; some says that what the pace does not let out now may
// stay behind, where there is something to be read without. done is how many of them were asked for.
func (d *Desk) send(ctx context.Context, wanted []want, refused func(archive string, err error) error, some bool) (done int, err error) {
	gone := map[string]bool{}
	var batch []want
	flush := func() error {
		asked := d.together(ctx, batch)
		for i, w := range batch {
			err := asked[i].err
			if err == nil {
				err = d.remember(ctx, asked[i].rt)
			}
			if IsDamage(err) && refused != nil {
				gone[w.archive] = true
				err = refused(w.archive, err)
			}
			if err != nil {
				return err
			}
		}
		done += len(batch)
		batch = batch[:0]
		return nil
	}
	for i, w := range wanted {
		same := len(batch) > 0 && batch[len(batch)-1].archive == w.archive
		if len(batch) == d.abreast() || same {
			if err := flush(); err != nil {
				return done, err
			}
		}
		if done = i - len(batch); gone[w.archive] {
			if err := flush(); err != nil {
				return done, err
			}
			continue
		}
		// Of one archive an earlier request of this order may have it.
		if i > 0 && wanted[i-1].archive == w.archive {
			have, ok, err := d.saved(ctx, w.archive, w.r)
			if err != nil {
				return done, err
			}
			if ok {
				d.note(have, ok)
				continue
			}
		}
		if err := d.wait(ctx, i, len(wanted), some && d.all > 0); err != nil {
			if ferr := flush(); ferr != nil {
				return done, ferr
			}
			if errors.Is(err, errEnough) {
				return i, nil
			}
			return i, err
		}
		batch = append(batch, w)
	}
	if err := flush(); err != nil {
		return done, err
	}
	return len(wanted), nil
}

// abreast is how many requests are on their way at a time: several, where one asks for whole archives of
// which there may be very many.
func (d *Desk) abreast() int {
	if d.o.Traits.OneRetrieval {
		return 16
	}
	return 1
}

type asked struct {
	rt  coldstore.Retrieval
	err error
}

// together sends requests abreast, and waits for all their answers.
func (d *Desk) together(ctx context.Context, batch []want) []asked {
	all := make([]asked, len(batch))
	if len(batch) == 1 {
		all[0].rt, all[0].err = d.ask(ctx, batch[0].archive, batch[0].r)
		return all
	}
	var wg sync.WaitGroup
	for i, w := range batch {
		wg.Go(func() { all[i].rt, all[i].err = d.ask(ctx, w.archive, w.r) })
	}
	wg.Wait()
	return all
}

var errEnough = errors.New("the pace lets no more out now")

// Held is a retrieval of an earlier run, or of this one, that has range r of an archive ready now; ok is
// false where there is none. Of a warm store there never is.
func (d *Desk) Held(ctx context.Context, archive string, r coldstore.Range) (rt coldstore.Retrieval, ok bool, err error) {
	if d.o.Traits.Warm {
		return rt, false, nil
	}
	rt, ok, err = d.saved(ctx, archive, r)
	return rt, ok && rt.Ready, err
}

func (d *Desk) approve(ctx context.Context, b Bill) error {
	if d.o.Approve == nil || d.o.Traits.Warm || b.Requests == 0 {
		return nil
	}
	return d.o.Approve(ctx, b)
}

// request asks the vault, and remembers it.
func (d *Desk) request(ctx context.Context, archive string, r coldstore.Range) (coldstore.Retrieval, error) {
	rt, err := d.ask(ctx, archive, r)
	if err == nil {
		err = d.remember(ctx, rt)
	}
	return rt, err
}

// ask sends one request. It may be called from several goroutines.
func (d *Desk) ask(ctx context.Context, archive string, r coldstore.Range) (coldstore.Retrieval, error) {
	o := coldstore.RetrievalOptions{Tier: d.o.Tier, Days: d.o.Days, Faster: d.slow[archive]}
	var rt coldstore.Retrieval
	err := transfer.Retry(ctx, d.o.Transfer, func() (err error) {
		rt, err = d.o.Store.RequestRetrieval(ctx, archive, r, o)
		return err
	})
	if err != nil {
		return rt, err // it names the archive
	}
	if rt.Archive == "" {
		rt.Archive = archive
	}
	return rt, nil
}

// remember writes a retrieval down.
func (d *Desk) remember(ctx context.Context, rt coldstore.Retrieval) error {
	if !d.o.Traits.Warm {
		if err := d.o.Journal.PutRetrieval(ctx, catalog.SavedRetrieval{Vault: d.o.Vault, Retrieval: rt}); err != nil {
			return err
		}
		if d.o.Asked != nil {
			d.o.Asked(rt)
		}
	}
	d.note(rt, true)
	return nil
}

// soon is how long an order pauses for its pace even where nobody wants to wait.
const soon = time.Minute

// wait waits until one more request may go out: of those of the last Pace.Per, also of earlier
// runs, there are never more than Pace.Requests. errEnough: that takes long, and there is enough.
func (d *Desk) wait(ctx context.Context, done, all int, enough bool) error {
	p := d.o.Pace
	if p.Unlimited() {
		return nil
	}
	if d.window == nil {
		d.at = d.o.Now()
		d.window = []time.Time{}
		old, err := d.o.Journal.Retrievals(ctx, d.o.Vault, "")
		if err != nil {
			return err
		}
		for _, r := range old { // oldest first
			if r.Requested.After(d.at.Add(-p.Per)) {
				d.window = append(d.window, r.Requested)
			}
		}
	}
	if now := d.o.Now(); now.After(d.at) {
		d.at = now
	}
	if over := int64(len(d.window)) - p.Requests; over >= 0 {
		pause := d.window[over].Add(p.Per).Sub(d.at)
		if pause > soon && enough {
			return errEnough
		}
		if pause > soon && !d.o.Wait {
			return failure.Errorf(failure.NotReady, "%d of %d retrievals are asked for; the next may be in %s, by the rate of %s",
				done, all, pause.Round(time.Second), p)
		}
		if pause > 0 {
			if err := d.o.Transfer.Sleep(ctx, pause); err != nil {
				return err
			}
			d.at = d.at.Add(pause) // also where the clock stands still
		}
		d.window = d.window[over+1:]
	}
	d.window = append(d.window, d.at)
	return nil
}
