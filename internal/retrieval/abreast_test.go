package retrieval_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/retrieval"
)

// bucket is a vault that keeps one retrieval of an archive, and some archives readable.
type bucket struct {
	*vault
	mu    sync.Mutex
	tiers map[string]coldstore.Tier // that were asked for, by archive
	posts int
	most  int // requests that are let through; then it breaks
}

func (b *bucket) RequestRetrieval(_ context.Context, archive string, _ coldstore.Range, o coldstore.RetrievalOptions) (coldstore.Retrieval, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, running := b.tiers[archive]; running && !o.Faster {
		return coldstore.Retrieval{}, fmt.Errorf("archive %s is asked for twice", archive)
	}
	if b.posts++; b.posts > b.most {
		return coldstore.Retrieval{}, errors.New("the line broke")
	}
	b.tiers[archive] = o.Tier
	rt := coldstore.Retrieval{Token: fmt.Sprint(archive, o.Tier), Archive: archive, Tier: o.Tier, Requested: b.now}
	rt.Ready = strings.HasPrefix(archive, "manifest")
	b.made[rt.Token] = rt
	return rt, nil
}

func (b *bucket) ReadableNow(_ context.Context, archive string) (bool, error) {
	return strings.HasPrefix(archive, "manifest"), nil
}

// Very many archives are asked for abreast, each once, and a run that broke off goes on with the others.
func TestAbreast(t *testing.T) {
	t.Parallel()
	const n = 1000
	b := &bucket{vault: &vault{now: time.Unix(1e9, 0), made: map[string]coldstore.Retrieval{}}, tiers: map[string]coldstore.Tier{}, most: 333}
	j := journal{}
	var billed int64
	order := func(tier coldstore.Tier) error {
		d := desk(b.vault, j, func(o *retrieval.Options) {
			o.Store, o.Tier = b, tier
			o.Traits = coldstore.Traits{WholeOnly: true, OneRetrieval: true, Upgrades: true}
			o.Approve = func(_ context.Context, bill retrieval.Bill) error { billed = bill.Requests; return nil }
		})
		for i := range n {
			for _, name := range []string{fmt.Sprint("volume", i), fmt.Sprint("manifest", i)} {
				if err := d.Want(ctx, name, coldstore.Range{}, 10); err != nil {
					t.Fatal(err)
				}
			}
		}
		return d.Order(ctx, nil)
	}
	if err := order(coldstore.Bulk); err == nil || len(j) > b.most || len(j) < b.most-16 {
		t.Errorf("%v; %d remembered", err, len(j))
	}
	if billed != n {
		t.Errorf("%d are billed", billed)
	}
	for token := range b.made { // the few that were answered and not remembered: the vault knows them
		if _, ok := j[token]; !ok {
			j[token] = b.made[token]
		}
	}
	b.most = 1 << 30
	if err := order(coldstore.Bulk); err != nil {
		t.Error(err)
	}
	if len(j) != 2*n || len(b.tiers) != 2*n || billed >= n {
		t.Errorf("%d remembered, %d asked for, %d billed", len(j), len(b.tiers), billed)
	}
	// In a hurry, those that are not ready are asked for once more.
	was := b.posts
	for range 2 {
		if err := order(coldstore.Standard); err != nil {
			t.Error(err)
		}
	}
	if b.posts-was != n || b.tiers["volume7"] != coldstore.Standard || b.tiers["manifest7"] != coldstore.Bulk {
		t.Errorf("%d requests more, %s, %s", b.posts-was, b.tiers["volume7"], b.tiers["manifest7"])
	}
}
