// Package glacierserver speaks the REST API of Amazon Glacier (2012-06-01), all 33 operations
// of it, over vaults in directories (package localdir): an http.Handler, and a
// listener for it. It owns the API's rules (signatures, limits, error codes, jobs with their delays, inventories
// that lag, policies and locks) and keeps what the vaults themselves do not hold as small JSON files below its
// root. It must not know of clients: not of Firn's formats, sets and catalog, nor of package glaciervault, which
// is tried against it and would agree with it in every error that they share. It was made from the service's documentation. docs/reference/serve-glacier.md is its page for users.
//
// What it has acknowledged is on disk. A kill -9 at any instant leaves a root
// that the next start can serve.
package glacierserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
	"github.com/firn-backup/firn/internal/durable"
	"github.com/firn-backup/firn/internal/failure"
)

// What an Options field is when it is left empty.
const (
	DefaultAccount     = "123456789012"
	DefaultRegion      = "us-east-1"
	DefaultBodyTimeout = 60 * time.Second
	DefaultMaxVaults   = 1000
)

// stateDir is where, below the root, everything lies that is not a vault. No vault can
// have that name.
const stateDir = "~server"

const (
	dirPerm  = 0o700
	filePerm = 0o600
)

// Options say how a Server behaves. Root must be set; the zero value of all else works.
type Options struct {
	Root    string // an absolute path; made where it is missing
	Account string // 12 digits
	Region  string // in ARNs where a request does not name one

	Keys        []Key         // who may sign. None: any signature passes
	Delays      Delays        // how long jobs take, in simulated time
	Clock       *Clock        // simulated time. Nil: the real one
	Faults      []Fault       // injected, see ParseFault
	MaxVaults   int           // how many there can be
	BodyTimeout time.Duration // how long a body may make no progress

	// ProvisionedOnly refuses Expedited retrievals unless provisioned capacity was bought.
	ProvisionedOnly bool

	Log      *slog.Logger     // a record a request. Nil: none
	WallTime func() time.Time // of signatures. Nil: time.Now
}

// Server serves the vaults below one root, as one account. It is safe for concurrent use.
type Server struct {
	o      Options
	routes []route
	keys   map[string]Key
	faults *faults
	unlock func() error

	mu     sync.Mutex
	vaults map[string]*vault

	account account
}

var _ http.Handler = (*Server)(nil)

func accountPattern() *regexp.Regexp { return regexp.MustCompile(`^[0-9]{12}$`) }

// New makes a Server and takes its root: of two servers on one root the second gets a
// *durable.LockedError. Close it.
func New(o Options) (*Server, error) {
	s, err := newServer(o)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", o.Root, err)
	}
	return s, nil
}

func newServer(o Options) (*Server, error) {
	if o.Account == "" {
		o.Account = DefaultAccount
	}
	if o.Region == "" {
		o.Region = DefaultRegion
	}
	if o.BodyTimeout <= 0 {
		o.BodyTimeout = DefaultBodyTimeout
	}
	if o.MaxVaults <= 0 {
		o.MaxVaults = DefaultMaxVaults
	}
	if o.WallTime == nil {
		o.WallTime = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case !filepath.IsAbs(o.Root):
		return nil, failure.Errorf(failure.Usage, "the path is not absolute")
	case !accountPattern().MatchString(o.Account):
		return nil, failure.Errorf(failure.Usage, "account %q: an account number has 12 digits", o.Account)
	case localdir.IsVault(o.Root):
		return nil, failure.Errorf(failure.Usage, "this is a vault itself: give the directory that it lies in")
	}
	for _, dir := range []string{o.Root, filepath.Join(o.Root, stateDir), filepath.Join(o.Root, stateDir, "vaults")} {
		if err := durable.MkdirAll(dir, dirPerm); err != nil {
			return nil, err
		}
	}
	unlock, err := durable.Lock(filepath.Join(o.Root, stateDir, "lock"))
	if held := (*durable.LockedError)(nil); errors.As(err, &held) {
		return nil, failure.Wrap(failure.Locked, err)
	}
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, routes: routes(), keys: map[string]Key{}, faults: newFaults(o.Faults), unlock: unlock, vaults: map[string]*vault{}}
	for _, k := range o.Keys {
		s.keys[k.ID] = k
	}
	if s.o.Clock == nil {
		s.o.Clock = &Clock{}
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, unlock())
	}
	return s, nil
}

// start makes good what a kill has left.
func (s *Server) start() error {
	if err := s.o.Clock.start(filepath.Join(s.o.Root, stateDir, "clock.json")); err != nil {
		return err
	}
	if err := s.account.load(filepath.Join(s.o.Root, stateDir, "account.json")); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(s.o.Root, stateDir, "deleted"))
}

// Close gives the root free. No request may be under way.
func (s *Server) Close() error { return s.unlock() }

// ServeHTTP answers one request of the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	q := &request{Server: s, w: w, r: r, rc: http.NewResponseController(w), id: rand.Text() + rand.Text(), region: s.o.Region}
	w.Header()["x-amzn-RequestId"] = []string{q.id}
	err := q.serve()
	aborted := errors.Is(err, http.ErrAbortHandler)
	if err != nil && !aborted {
		q.drain(err)
		aborted = !q.fail(err)
	}
	q.log(began, err)
	if aborted {
		panic(http.ErrAbortHandler)
	}
}

// request is one request on its way.
type request struct {
	*Server
	w  http.ResponseWriter
	r  *http.Request
	rc *http.ResponseController

	id     string
	op     *operation
	region string
	key    string // access key id, "" when there is none
	user   string // whose it is, as the keys file names him

	vaultName string
	arg       string // the id at the end of the path, if there is one

	now  time.Time // simulated
	body []byte    // of operations with a JSON body
	v    *vault

	unread   bool // there may be more of the body: the connection is no good for another request
	status   int  // that was sent; 0: none yet
	sent     int64
	received int64
}

func (q *request) serve() error {
	rt, routeErr := q.route()
	if rt != nil {
		q.op = rt.op
		q.unread = q.op.stream && q.r.ContentLength != 0
	}
	if q.op != nil && q.faults.drops(q.op.name) == dropBefore {
		return q.drop()
	}
	if q.op == nil || !q.op.stream {
		if err := q.readBody(); err != nil {
			return err
		}
	}
	if err := q.authenticate(); err != nil {
		return err
	}
	if routeErr != nil {
		return routeErr
	}
	if err := q.checkVersion(); err != nil {
		return err
	}
	if a := rt.account; a != "-" && a != q.o.Account {
		if !accountPattern().MatchString(a) {
			return invalid("Invalid account ID: %s", a)
		}
		return &apiError{http.StatusForbidden, "AccessDeniedException", fmt.Sprintf("The account %s is not that of the credentials", a)}
	}
	var err error
	if q.now, err = q.o.Clock.now(); err != nil {
		return err
	}
	if err := q.inject(); err != nil {
		return err
	}
	if q.op.vault {
		if err := q.openVault(); err != nil {
			return err
		}
	}
	return q.op.run(q)
}

func (q *request) checkVersion() error {
	switch v := q.r.Header.Get("X-Amz-Glacier-Version"); v {
	case "2012-06-01":
		return nil
	case "":
		return missing("Required parameter missing: API version")
	default:
		return invalid("The API version is not valid: %s", v)
	}
}

// openVault finds the vault of the path, and asks its policies.
func (q *request) openVault() error {
	if err := checkVaultName(q.vaultName); err != nil {
		return err
	}
	v, err := q.get(q.vaultName)
	switch {
	case errors.Is(err, errNoVault) && (q.op.name == "CreateVault" || q.op.name == "DeleteVault"):
		return nil
	case errors.Is(err, errNoVault):
		return notFound("Vault not found for ARN: %s", q.arn(q.vaultName))
	case err != nil:
		return err
	}
	q.v = v
	if err := v.tick(q.r.Context(), q.now); err != nil {
		return err
	}
	return q.authorize(nil)
}

func (q *request) arn(vault string) string {
	return fmt.Sprintf("arn:aws:glacier:%s:%s:vaults/%s", q.region, q.o.Account, vault)
}

// location is the path of something in the vault, with the real account.
func (q *request) location(rest string) string {
	return "/" + q.o.Account + "/vaults/" + q.vaultName + rest
}

// cold makes an answer of an error of a store.
func cold(err error) error {
	var api *apiError
	switch {
	case err == nil || errors.As(err, &api):
		return err
	case failure.KindOf(err) == failure.NotFound && !errors.Is(err, coldstore.ErrNotFound):
		return err // the whole vault has gone: nothing of it can be said not to exist
	case errors.Is(err, coldstore.ErrNotFound):
		return &apiError{http.StatusNotFound, "ResourceNotFoundException", err.Error()}
	case errors.Is(err, coldstore.ErrInvalid), errors.Is(err, coldstore.ErrIntegrity):
		return &apiError{http.StatusBadRequest, "InvalidParameterValueException", err.Error()}
	}
	return err
}

// log writes the access log. It never names a signature, a secret or a token.
func (q *request) log(began time.Time, err error) {
	name, level := "-", slog.LevelInfo
	if q.op != nil {
		name = q.op.name
	}
	attrs := []slog.Attr{
		slog.String("remote", q.r.RemoteAddr), slog.String("key", q.key), slog.String("op", name),
		slog.String("method", q.r.Method), slog.String("path", q.r.URL.EscapedPath()),
		slog.Int("status", q.status), slog.Int64("in", q.received), slog.Int64("out", q.sent),
		slog.Duration("took", time.Since(began).Round(time.Microsecond)), slog.String("request", q.id),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
		if q.status >= 500 || q.status == 0 {
			level = slog.LevelWarn
		}
	}
	q.o.Log.LogAttrs(context.WithoutCancel(q.r.Context()), level, "request", attrs...)
}
