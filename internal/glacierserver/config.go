package glacierserver

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxTags   = 50
	maxPolicy = 20 << 10 // bytes
)

// notifications are stored and shown; nothing is ever sent.
type notifications struct {
	SNSTopic string
	Events   []string
}

// change changes the state of the request's vault, durably; an error leaves it as it was.
func (q *request) change(do func(st *vaultState) error) error {
	v := q.v
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.st
	if err := do(&v.st); err != nil {
		v.st = before
		return err
	}
	if err := v.save(); err != nil {
		v.st = before
		return err
	}
	return nil
}

// state is a copy of the state of the request's vault.
func (q *request) state() vaultState {
	q.v.mu.Lock()
	defer q.v.mu.Unlock()
	st := q.v.st
	st.Tags = maps.Clone(st.Tags)
	return st
}

// changed answers a change that has no more to tell.
func (q *request) changed(do func(st *vaultState) error) error {
	if err := q.change(do); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (q *request) setNotifications() error {
	var in struct {
		SNSTopic                *string
		Events                  []string
		VaultNotificationConfig *notifications `json:"vaultNotificationConfig"`
	}
	if err := q.parse(&in); err != nil {
		return err
	}
	n := notifications{str(in.SNSTopic), in.Events}
	if in.SNSTopic == nil && in.VaultNotificationConfig != nil {
		n = *in.VaultNotificationConfig
	}
	if n.SNSTopic == "" {
		return missing("Required parameter missing: SNSTopic")
	}
	if len(n.Events) == 0 {
		return missing("Required parameter missing: Events")
	}
	for _, e := range n.Events {
		if e != "ArchiveRetrievalCompleted" && e != "InventoryRetrievalCompleted" {
			return invalid("Invalid notification event: %s", e)
		}
	}
	return q.changed(func(st *vaultState) error { st.Notifications = &n; return nil })
}

func (q *request) getNotifications() error {
	n := q.state().Notifications
	if n == nil {
		return notFound("No notification configuration is set for vault: %s", q.arn(q.vaultName))
	}
	q.json(http.StatusOK, n)
	return nil
}

func (q *request) deleteNotifications() error {
	return q.changed(func(st *vaultState) error { st.Notifications = nil; return nil })
}

func (q *request) listTags() error {
	tags := q.state().Tags
	if tags == nil {
		tags = map[string]string{}
	}
	q.json(http.StatusOK, struct{ Tags map[string]string }{tags})
	return nil
}

func (q *request) addTags() error {
	var in struct{ Tags map[string]string }
	if err := q.parse(&in); err != nil {
		return err
	}
	if len(in.Tags) == 0 {
		return missing("Required parameter missing: Tags")
	}
	for k, value := range in.Tags {
		if n := utf8.RuneCountInString(k); n < 1 || n > 128 || strings.HasPrefix(strings.ToLower(k), "aws:") {
			return invalid("Invalid tag key: %s", k)
		}
		if utf8.RuneCountInString(value) > 255 { // as the guide has it; S3 allows one more
			return invalid("Invalid value of tag %s", k)
		}
	}
	return q.changed(func(st *vaultState) error {
		all := maps.Clone(st.Tags)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, in.Tags)
		if len(all) > maxTags {
			return limitExceeded("The vault would have %d tags, of at most %d", len(all), maxTags)
		}
		st.Tags = all
		return nil
	})
}

func (q *request) removeTags() error {
	var in struct{ TagKeys []string }
	if err := q.parse(&in); err != nil {
		return err
	}
	if len(in.TagKeys) == 0 {
		return missing("Required parameter missing: TagKeys")
	}
	return q.changed(func(st *vaultState) error {
		all := maps.Clone(st.Tags)
		maps.DeleteFunc(all, func(k, _ string) bool { return slices.Contains(in.TagKeys, k) })
		st.Tags = all
		return nil
	})
}

// policyBody reads the body of the two operations that set a policy.
func (q *request) policyBody() (string, error) {
	var in struct {
		Policy  *string
		Wrapped *struct{ Policy *string } `json:"policy"`
	}
	// The two names differ in case only, which encoding/json does not tell apart for a string.
	if err := q.parse(&struct{ Policy **string }{&in.Policy}); err != nil {
		if q.parse(&struct {
			Policy **struct{ Policy *string }
		}{&in.Wrapped}) != nil {
			return "", err
		}
		if in.Wrapped != nil {
			in.Policy = in.Wrapped.Policy
		}
	}
	if str(in.Policy) == "" {
		return "", missing("Required parameter missing: Policy")
	}
	if len(*in.Policy) > maxPolicy {
		return "", invalid("Invalid policy: it has %d bytes, of at most %d", len(*in.Policy), maxPolicy)
	}
	if _, err := parsePolicy(*in.Policy); err != nil {
		return "", invalid("Invalid policy: %v", err)
	}
	return *in.Policy, nil
}

func (q *request) setAccessPolicy() error {
	text, err := q.policyBody()
	if err != nil {
		return err
	}
	return q.changed(func(st *vaultState) error { st.AccessPolicy = &text; return nil })
}

func (q *request) getAccessPolicy() error {
	p := q.state().AccessPolicy
	if p == nil {
		return notFound("No vault access policy is set for: %s", q.arn(q.vaultName))
	}
	q.json(http.StatusOK, struct{ Policy string }{*p})
	return nil
}

func (q *request) deleteAccessPolicy() error {
	return q.changed(func(st *vaultState) error { st.AccessPolicy = nil; return nil })
}
