package glacierserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/firn-backup/firn/internal/failure"
)

// shutdownGrace is for how long requests under way may go on when the server is told to end.
const shutdownGrace = 30 * time.Second

// Listen says where a Server listens.
type Listen struct {
	Address           string                 // HOST:PORT; port 0 takes a free one
	CertFile, KeyFile string                 // of TLS; both or none
	Ready             func(url string) error // is called once, when requests are accepted
}

// Run serves until ctx ends, and then lets what is under way come to its end. Without keys it refuses
// to be heard beyond this machine: anybody could read and delete.
func (s *Server) Run(ctx context.Context, l Listen) error {
	if (l.CertFile == "") != (l.KeyFile == "") {
		return failure.Errorf(failure.Usage, "a certificate and its key go together")
	}
	addr, err := net.ResolveTCPAddr("tcp", l.Address)
	if err != nil {
		return failure.Errorf(failure.Usage, "listen on %s: %w", l.Address, err)
	}
	if len(s.keys) == 0 && !addr.IP.IsLoopback() {
		return failure.Errorf(failure.Usage, "listen on %s: without keys only this machine may be served (127.0.0.1, ::1)", l.Address)
	}
	ln, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", l.Address, err)
	}
	h := &http.Server{
		Handler: s, ReadHeaderTimeout: s.o.BodyTimeout, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelWarn),
	}
	scheme, serve := "http", h.Serve
	if l.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(l.CertFile, l.KeyFile)
		if err != nil {
			ln.Close()
			return failure.Errorf(failure.Usage, "certificate: %w", err)
		}
		h.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		scheme, serve = "https", func(ln net.Listener) error { return h.ServeTLS(ln, "", "") }
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(ln) }()
	if l.Ready != nil {
		err = l.Ready(scheme + "://" + ln.Addr().String())
	}
	if err == nil {
		select {
		case err = <-ended:
			return fmt.Errorf("listen on %s: %w", l.Address, err)
		case <-ctx.Done():
		}
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if e := h.Shutdown(grace); e != nil {
		err = errors.Join(err, e, h.Close())
	}
	<-ended // http.ErrServerClosed
	return err
}
