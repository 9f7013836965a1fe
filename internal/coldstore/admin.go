package coldstore

import (
	"context"
	"time"
)

// This file holds what some vaults can do beside keeping archives: small
// interfaces that a caller finds by type assertion on a Store. A store that
// cannot do a thing does not have the method.
//
// All of it may be repeated when an answer was lost, except where a comment
// says otherwise. Errors are those of the store: ErrNotFound where there is no such vault, policy, lock or job.

// Vault is what a service tells of a vault.
type Vault struct {
	Name    string
	ID      string // the service's own name for it, such as an ARN
	Created time.Time
	// Archives and Bytes are as of Inventory, and not known while that is zero.
	Inventory time.Time
	Archives  int64
	Bytes     int64
}

// A VaultDescriber tells of its own vault.
type VaultDescriber interface {
	DescribeVault(ctx context.Context) (Vault, error)
}

// A VaultLister tells of all vaults beside its own: those of the same account and region.
type VaultLister interface {
	// ListVaults calls fn for every vault. It stops at fn's first error and returns it.
	ListVaults(ctx context.Context, fn func(Vault) error) error
}

// An AccountTeller tells who asks: the same vault name is another vault in another account.
type AccountTeller interface {
	// Caller is a hash of the access key's id and of the endpoint: it costs no request, and tells nobody the key.
	Caller(ctx context.Context) (string, error)
	// AccountNumber asks the service for the account's number, by a vault that may exist, or by any. ErrNotFound: there is no vault to
	// tell it by.
	AccountNumber(ctx context.Context, vault string) (string, error)
}

// A VaultDeleter deletes its own vault.
type VaultDeleter interface {
	// DeleteVault succeeds for a vault that is not there. ErrInvalid: archives are in it,
	// or were when the service last looked, which may be a day ago.
	DeleteVault(ctx context.Context) error
}

// A LaggingLister is a Lister whose listings the service makes now and then,
// at a price or after hours, and that may be used again while they are young.
type LaggingLister interface {
	// ListWithin is List, but a listing that is finished already is used only if that was
	// at most maxAge ago; not positive: as old as List takes it. ErrNotReady: one is being made now.
	ListWithin(ctx context.Context, maxAge time.Duration, fn func(Archive) error) (asOf time.Time, err error)
}

// A Tagger keeps tags, short texts by name, at its vault.
type Tagger interface {
	Tags(ctx context.Context) (map[string]string, error)
	// AddTags sets those tags and leaves others alone.
	AddTags(ctx context.Context, tags map[string]string) error
	// RemoveTags succeeds for tags that are not there.
	RemoveTags(ctx context.Context, names []string) error
}

// An AccessPolicyKeeper keeps a policy of who may do what with its vault: a JSON document of the service's own kind.
type AccessPolicyKeeper interface {
	// AccessPolicy returns ErrNotFound where there is none.
	AccessPolicy(ctx context.Context) (string, error)
	SetAccessPolicy(ctx context.Context, policy string) error
	// DeleteAccessPolicy succeeds where there is none.
	DeleteAccessPolicy(ctx context.Context) error
}

// LockState is how far the locking of a vault has come.
type LockState string

const (
	LockInProgress LockState = "InProgress" // in force, and can be undone
	Locked         LockState = "Locked"     // for ever
)

// VaultLock is a policy that nobody can take back once it is Locked.
type VaultLock struct {
	Policy  string // JSON
	State   LockState
	Created time.Time
	Expires time.Time // of a lock in progress: when it falls away unless it is completed; else zero
}

// A VaultLocker locks its vault in two steps, a day at most between them.
type VaultLocker interface {
	// VaultLock returns ErrNotFound where no lock was begun.
	VaultLock(ctx context.Context) (VaultLock, error)
	// BeginVaultLock puts a policy in force for a day, to be tried. Its id is told this
	// once only. If the answer is lost: AbortVaultLock and begin anew.
	BeginVaultLock(ctx context.Context, policy string) (id string, err error)
	// CompleteVaultLock makes the policy begun with that id stand for ever. Nothing undoes it.
	CompleteVaultLock(ctx context.Context, id string) error
	// AbortVaultLock takes back a lock in progress; it succeeds where there is none, and fails on one that is Locked.
	AbortVaultLock(ctx context.Context) error
}

// Notifications say whom a vault tells that jobs are done.
type Notifications struct {
	Topic  string   // an SNS topic's ARN
	Events []string // ArchiveRetrievalCompleted, InventoryRetrievalCompleted
}

// A Notifier tells somebody when jobs of its vault are done.
type Notifier interface {
	// Notifications returns ErrNotFound where none are set.
	Notifications(ctx context.Context) (Notifications, error)
	SetNotifications(ctx context.Context, n Notifications) error
	// DeleteNotifications succeeds where none are set.
	DeleteNotifications(ctx context.Context) error
}

// Subscription is one who is told what is published to a topic.
type Subscription struct {
	ID       string // the service's own name for it; empty while it is pending
	Topic    string // ARN
	Protocol string // email, email-json, http, https, sqs, sms, lambda …
	Endpoint string // an address, a URL, an ARN: as the protocol has it
	Pending  bool   // whoever is to be told has not confirmed it yet
}

// A TopicKeeper keeps topics of SNS, and who is told of them, for an account and region. What a
// Notifier publishes comes to nobody without one.
type TopicKeeper interface {
	// EnsureTopic makes the topic of that name where there is none, and returns its ARN.
	EnsureTopic(ctx context.Context, name string) (arn string, err error)
	// FindTopic returns the ARN of the topic of that name, or ErrNotFound.
	FindTopic(ctx context.Context, name string) (arn string, err error)
	// EachTopic stops at fn's first error and returns it.
	EachTopic(ctx context.Context, fn func(arn string) error) error
	// Subscribe returns the subscription that is there already where there is one; one that waits to be
	// confirmed is asked for again, so that the endpoint gets another message.
	Subscribe(ctx context.Context, s Subscription) (Subscription, error)
	// Unsubscribe takes one away by its id; it succeeds where there is none.
	Unsubscribe(ctx context.Context, id string) error
	// EachSubscription tells of a topic's subscriptions; with an empty topic, of all. It stops at fn's first error and returns it.
	EachSubscription(ctx context.Context, topic string, fn func(Subscription) error) error
}

// JobKind is what a job does.
type JobKind string

const (
	JobRetrieval JobKind = "retrieval" // of an archive, or a range of it
	JobInventory JobKind = "inventory" // a listing of the vault
)

// JobState is how a job stands.
type JobState string

const (
	JobRunning JobState = "running"
	JobDone    JobState = "done"
	JobFailed  JobState = "failed"
)

// Job is one asking of the service, by whoever.
type Job struct {
	ID          string
	Kind        JobKind
	State       JobState
	Message     string // of the service, mostly why it failed
	Description string
	Requested   time.Time
	Completed   time.Time // zero while it runs
	Expires     time.Time // zero while it runs: until then its output can be read, perhaps longer

	// Of a retrieval.
	Archive  string
	Size     int64 // of the archive, bytes
	Range    Range // zero: the whole archive
	Tier     Tier
	TreeHash string // hexadecimal, of the range; empty where the service does not tell

	// Of an inventory, once it is done.
	InventorySize int64 // bytes
}

// A JobLister tells of the jobs of its vault, those of other programs among them.
type JobLister interface {
	// ListJobs calls fn for every job that the service still knows. It stops at fn's first error and returns it.
	ListJobs(ctx context.Context, fn func(Job) error) error
	DescribeJob(ctx context.Context, id string) (Job, error)
}

// RetrievalPolicy limits what the account may spend on retrievals in a region.
type RetrievalPolicy struct {
	Strategy     string // BytesPerHour, FreeTier, None
	BytesPerHour int64  // of the first strategy
}

// A RetrievalLimiter keeps a RetrievalPolicy for the account and region.
type RetrievalLimiter interface {
	RetrievalPolicy(ctx context.Context) (RetrievalPolicy, error)
	SetRetrievalPolicy(ctx context.Context, p RetrievalPolicy) error
}

// Capacity is one unit of what was bought so that Expedited retrievals are always possible.
type Capacity struct {
	ID      string
	Begins  time.Time
	Expires time.Time
}

// A CapacityBuyer sells Capacity, by the month.
type CapacityBuyer interface {
	Capacities(ctx context.Context) ([]Capacity, error)
	// BuyCapacity costs money, each time. If the answer is lost, look at Capacities before repeating it.
	BuyCapacity(ctx context.Context) (id string, err error)
}

// Fact is something about the place that a vault is in, for people.
type Fact struct{ Name, Value string }

// Document is one in a language of the service's: a policy, a rule.
type Document struct {
	Name string // "backup-only"
	For  string // what it is for, one line
	Text string // JSON
}

// Inspection is what there is to know of the place that a vault is in.
type Inspection struct {
	Facts     []Fact
	Dangers   []string   // what will, or may, lose archives: one line each, saying what to do
	Notes     []string   // what may be otherwise than wanted, and what could not be looked at
	Policies  []Document // the least permissions for machines of each kind
	Proposals []Document // settings that would be good and are not there
}

// An Inspector looks at the place that its vault is in: whether its settings go with what a vault promises. It changes nothing.
type Inspector interface {
	// Inspect looks at everything. What these credentials may not see becomes a note, and no error.
	Inspect(ctx context.Context) (Inspection, error)
	// Dangers looks, with one request, for settings that delete archives: one line each, saying what to
	// do. Nothing where these credentials may not look.
	Dangers(ctx context.Context) ([]string, error)
}

// Retention locks what is stored: until so many days from its upload on it cannot be deleted.
type Retention struct {
	Days int // at least 1
	// Compliance says that nobody can take the lock back, the account's owner included; else who has a special permission can.
	Compliance bool
}

// A Retainer can lock archives as it stores them. An optional ability.
type Retainer interface {
	// Retaining is the same vault, in which what is stored from now on is locked so, whatever else the vault's URL says;
	// its Traits tell LockDays.
	Retaining(r Retention) Store
}

// LockedError is that of a Delete that a lock refuses.
type LockedError struct {
	Until time.Time
	Err   error // what the service said
}

func (e *LockedError) Error() string {
	return "it is locked until " + e.Until.UTC().Format(time.RFC3339) + ": " + e.Err.Error()
}

// Unwrap gives what the service said.
func (e *LockedError) Unwrap() error { return e.Err }
