package glacierserver

import (
	"crypto/rand"
	"net/http"
	"time"
)

// lockTrial is how long a new lock can be tried and taken back.
const lockTrial = 24 * time.Hour

const (
	lockInProgress = "InProgress"
	lockLocked     = "Locked"
)

type vaultLock struct {
	ID      string    `json:"id"`
	Policy  string    `json:"policy"`
	State   string    `json:"state"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // of the trial
}

// inForce is the lock, unless its trial is over.
func (l *vaultLock) inForce(now time.Time) *vaultLock {
	if l == nil || l.State == lockInProgress && !now.Before(l.Expires) {
		return nil
	}
	return l
}

func (q *request) initiateLock() error {
	text, err := q.policyBody()
	if err != nil {
		return err
	}
	l := &vaultLock{ID: rand.Text(), Policy: text, State: lockInProgress, Created: q.now, Expires: q.now.Add(lockTrial)}
	err = q.change(func(st *vaultState) error {
		if old := st.Lock.inForce(q.now); old != nil {
			return denied("The vault lock is in state %s", old.State)
		}
		st.Lock = l
		return nil
	})
	if err != nil {
		return err
	}
	q.header("x-amz-lock-id", l.ID)
	return q.empty(http.StatusCreated)
}

func (q *request) getLock() error {
	st := q.state()
	l := st.Lock.inForce(q.now)
	if l == nil {
		return notFound("No vault lock policy is set for: %s", q.arn(q.vaultName))
	}
	q.json(http.StatusOK, struct {
		Policy         string
		State          string
		ExpirationDate *string
		CreationDate   string
	}{l.Policy, l.State, stampOrNull(l.Expires), stamp(l.Created)})
	return nil
}

func (q *request) abortLock() error {
	return q.changed(func(st *vaultState) error {
		if l := st.Lock.inForce(q.now); l != nil && l.State == lockLocked {
			return denied("The vault lock is in state %s", l.State)
		}
		st.Lock = nil
		return nil
	})
}

func (q *request) completeLock() error {
	return q.changed(func(st *vaultState) error {
		l := st.Lock.inForce(q.now)
		switch {
		case l == nil:
			return notFound("No vault lock policy is set for: %s", q.arn(q.vaultName))
		case l.ID != q.arg && l.State == lockLocked:
			return denied("The vault lock is in state %s", l.State)
		case l.ID != q.arg:
			return invalid("Invalid lock ID: %s", q.arg)
		}
		locked := *l
		locked.State, locked.Expires = lockLocked, time.Time{}
		st.Lock = &locked
		return nil
	})
}
