package extract

import (
	"os/user"
	"strconv"
)

// owners turns the owners of entries into numbers of this machine.
type owners struct {
	numeric       bool
	users, groups map[string]int // -1: no such name here
}

// maxNames bounds what is remembered; no honest snapshot has as many owners.
const maxNames = 10000

func newOwners(numeric bool) *owners {
	return &owners{numeric, map[string]int{}, map[string]int{}}
}

func (o *owners) uid(name string, id uint32) int {
	return o.lookup(o.users, name, id, func() (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

func (o *owners) gid(name string, id uint32) int {
	return o.lookup(o.groups, name, id, func() (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

func (o *owners) lookup(seen map[string]int, name string, id uint32, find func() (string, error)) int {
	if o.numeric || name == "" {
		return int(id)
	}
	n, ok := seen[name]
	if !ok {
		n = -1
		if s, err := find(); err == nil {
			if v, err := strconv.ParseUint(s, 10, 32); err == nil {
				n = int(v)
			}
		}
		if len(seen) >= maxNames {
			clear(seen)
		}
		seen[name] = n
	}
	if n < 0 {
		return int(id)
	}
	return n
}
