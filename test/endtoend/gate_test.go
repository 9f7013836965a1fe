package endtoend_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// gate stands before a service, and sees each part of an upload before it is passed on.
type gate struct {
	host string
	mu   sync.Mutex
	part func() (pass bool) // nil: all pass. It is called by one goroutine at a time
}

func newGate(t *testing.T, s *service) *gate {
	t.Helper()
	g := &gate{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.listen})
	proxy.Transport = &http.Transport{}
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) } // the client loses its connection, too
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/multipart-uploads/") && !g.pass() {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	g.host = strings.TrimPrefix(h.URL, "http://")
	return g
}

func (g *gate) pass() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.part == nil || g.part()
}

// start starts a program of whose parts part is told, which may rely on its having started.
func (g *gate) start(t *testing.T, cmd *exec.Cmd, part func() (pass bool)) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	must(t, cmd.Start())
	g.part = part
}

// open lets all parts pass.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.part = nil
}

// startOneAhead starts a program and returns the lines that it prints. It gets one write ahead of who reads them
// and no more, however busy the machine is: who ends it at a line has not missed its end.
func startOneAhead(t *testing.T, cmd *exec.Cmd) *bufio.Scanner {
	t.Helper()
	var fds [2]int
	must(t, syscall.Pipe2(fds[:], syscall.O_DIRECT|syscall.O_CLOEXEC)) // each write takes a page of it
	r, w := os.NewFile(uintptr(fds[0]), "lines"), os.NewFile(uintptr(fds[1]), "lines")
	t.Cleanup(func() { r.Close() })
	_, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, os.Getpagesize())
	must(t, err)
	cmd.Stdout = w
	must(t, cmd.Start())
	must(t, w.Close())
	return bufio.NewScanner(bufio.NewReaderSize(r, 1<<16)) // a write is read as a whole, or its end is lost
}
