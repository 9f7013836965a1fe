package catalog

import (
	"context"
	"database/sql"
	"sync"
)

// owner is the names of an entry's owner and group. There are few, and each entry has a pair:
// they are kept once, and numbered. Number 0 is no names.
type owner struct{ user, group string }

// ownersKept bounds the cache: more names than this no honest tree has.
const ownersKept = 10_000

type ownerCache struct {
	mu      sync.Mutex
	numbers map[owner]uint64
	names   map[uint64]owner
}

func newOwnerCache() ownerCache {
	return ownerCache{numbers: make(map[owner]uint64), names: make(map[uint64]owner)}
}

func (c *ownerCache) add(n uint64, o owner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.names) >= ownersKept {
		clear(c.numbers)
		clear(c.names)
	}
	c.numbers[o], c.names[n] = n, o
}

func (c *ownerCache) number(o owner) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.numbers[o]
	return n, ok
}

func (c *ownerCache) name(n uint64) (owner, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.names[n]
	return o, ok
}

// ownerNumber finds or makes the number of a pair of names.
func (d *DB) ownerNumber(ctx context.Context, o owner) (uint64, error) {
	if o == (owner{}) {
		return 0, nil
	}
	if n, ok := d.owners.number(o); ok {
		return n, nil
	}
	var n uint64
	err := d.change(ctx, lazy, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO owners (user_name, group_name) VALUES ($1, $2)
			ON CONFLICT (user_name, group_name) DO NOTHING`, blob(o.user), blob(o.group))
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT num FROM owners WHERE user_name = $1 AND group_name = $2`,
			blob(o.user), blob(o.group)).Scan(&n)
	})
	if err == nil {
		d.owners.add(n, o)
	}
	return n, err
}

// ownerNames is the way back.
func (d *DB) ownerNames(ctx context.Context, n uint64) (owner, error) {
	if n == 0 {
		return owner{}, nil
	}
	if o, ok := d.owners.name(n); ok {
		return o, nil
	}
	var o owner
	err := d.b.Read.QueryRowContext(ctx, `SELECT user_name, group_name FROM owners WHERE num = $1`, int64(n)).Scan(&o.user, &o.group)
	if err != nil {
		return o, notFound(err, "owner %d", n)
	}
	d.owners.add(n, o)
	return o, nil
}
