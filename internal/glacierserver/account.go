package glacierserver

import (
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	maxCapacity = 2
	// freePerDay is what the FreeTier strategy lets through in a day: a 30th of 10 GiB.
	freePerDay = 10 << 30 / 30
)

// account is what the account has beside vaults: the file account.json.
type account struct {
	mu   sync.Mutex
	path string
	st   accountState
}

type accountState struct {
	Rule     *retrievalRule `json:"data_retrieval,omitempty"`
	Capacity []capacity     `json:"provisioned_capacity,omitempty"`
}

type retrievalRule struct {
	Strategy     string
	BytesPerHour *int64
}

type capacity struct {
	CapacityId string
	Start, End time.Time
}

func (a *account) load(path string) error {
	a.path = path
	_, err := loadJSON(path, &a.st)
	return err
}

// change changes the account, durably; an error leaves it as it was.
func (a *account) change(do func(st *accountState) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.st
	err := do(&a.st)
	if err == nil {
		err = saveJSON(a.path, a.st)
	}
	if err != nil {
		a.st = before
	}
	return err
}

func (a *account) state() accountState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.st
}

// active is the capacity that is in force.
func (st *accountState) active(now time.Time) []capacity {
	var list []capacity
	for _, c := range st.Capacity {
		if now.Before(c.End) {
			list = append(list, c)
		}
	}
	return list
}

// admit adds an archive retrieval if the account's rules allow it. One at a time is asked, so that two
// together cannot pass where each alone could.
func (a *account) admit(s *Server, now time.Time, j *job, add func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if j.Tier == "Expedited" && s.o.ProvisionedOnly && len(a.st.active(now)) == 0 {
		return &apiError{http.StatusServiceUnavailable, "InsufficientCapacityException", "There is insufficient capacity to process this expedited request. The account has no provisioned capacity."}
	}
	if r := a.st.Rule; r != nil && r.Strategy != "None" && j.Tier == "Standard" {
		window, most := time.Hour, int64(0)
		if r.Strategy == "FreeTier" {
			window, most = inventoryDay, freePerDay
		} else {
			most = *r.BytesPerHour
		}
		asked, err := s.askedSince(now, now.Add(-window))
		if err != nil {
			return err
		}
		if j.OutputSize > most-asked {
			return &apiError{http.StatusBadRequest, "PolicyEnforcedException", "InitiateJob request denied by current data retrieval policy."}
		}
	}
	return add()
}

// askedSince is how many bytes Standard retrievals were initiated for since then.
func (s *Server) askedSince(now, since time.Time) (int64, error) {
	names, err := s.list()
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, name := range names {
		v, err := s.get(name)
		if err != nil {
			continue // gone, or to be told of when it is asked for
		}
		jobs, err := v.jobsNow(now)
		if err != nil {
			return 0, err
		}
		for _, j := range jobs {
			if j.Action == archiveRetrieval && j.Tier == "Standard" && j.Created.After(since) {
				sum += j.OutputSize
			}
		}
	}
	return sum, nil
}

func (q *request) getRetrievalPolicy() error {
	st := q.account.state()
	rule := retrievalRule{Strategy: "None"}
	if st.Rule != nil {
		rule = *st.Rule
	}
	var out struct {
		Policy struct{ Rules []retrievalRule }
	}
	out.Policy.Rules = []retrievalRule{rule}
	q.json(http.StatusOK, out)
	return nil
}

func (q *request) setRetrievalPolicy() error {
	var in struct {
		Policy *struct{ Rules []retrievalRule }
	}
	if err := q.parse(&in); err != nil {
		return err
	}
	if in.Policy == nil {
		return missing("Required parameter missing: Policy")
	}
	if len(in.Policy.Rules) != 1 {
		return invalid("A data retrieval policy has one rule, not %d", len(in.Policy.Rules))
	}
	rule := in.Policy.Rules[0]
	for _, name := range []string{"None", "FreeTier", "BytesPerHour"} {
		if strings.EqualFold(name, rule.Strategy) {
			rule.Strategy = name
		}
	}
	switch {
	case rule.Strategy == "BytesPerHour" && rule.BytesPerHour == nil:
		return missing("Required parameter missing: BytesPerHour")
	case rule.Strategy == "BytesPerHour" && *rule.BytesPerHour < 1:
		return invalid("Invalid BytesPerHour: %d", *rule.BytesPerHour)
	case rule.Strategy == "BytesPerHour":
	case rule.Strategy != "None" && rule.Strategy != "FreeTier":
		return invalid("Invalid strategy: %s", rule.Strategy)
	case rule.BytesPerHour != nil:
		return invalid("BytesPerHour is for the strategy BytesPerHour only")
	}
	if err := q.account.change(func(st *accountState) error { st.Rule = &rule; return nil }); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (q *request) purchaseCapacity() error {
	id := rand.Text()
	err := q.account.change(func(st *accountState) error {
		have := st.active(q.now)
		if len(have) >= maxCapacity {
			return limitExceeded("The account has %d units of provisioned capacity, and cannot have more", len(have))
		}
		st.Capacity = append(have, capacity{id, q.now, q.now.AddDate(0, 1, 0)})
		return nil
	})
	if err != nil {
		return err
	}
	q.header("x-amz-capacity-id", id)
	return q.empty(http.StatusCreated)
}

func (q *request) listCapacity() error {
	type unit struct{ CapacityId, StartDate, ExpirationDate string }
	out := struct{ ProvisionedCapacityList []unit }{[]unit{}}
	st := q.account.state()
	for _, c := range st.active(q.now) {
		out.ProvisionedCapacityList = append(out.ProvisionedCapacityList, unit{c.CapacityId, stamp(c.Start), stamp(c.End)})
	}
	q.json(http.StatusOK, out)
	return nil
}
