package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/glacierserver"
	"github.com/firn-backup/firn/internal/units"
)

func newServe(c *command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve vaults to other programs",
		Long:  "Serve vaults in directories to other programs, until interrupted.",
		Args:  cobra.ArbitraryArgs,
		RunE:  needCommand,
	}
	cmd.AddCommand(newServeGlacier(c))
	return cmd
}

type serveGlacier struct {
	root, listen, keys, clock, accessLog string
	cert, certKey                        string
	account, region                      string
	delays, inject                       []string
	scale                                float64
	provisioned                          bool
	maxVaults                            int
	bodyTimeout                          string
}

func newServeGlacier(c *command) *cobra.Command {
	var o serveGlacier
	cmd := &cobra.Command{
		Use:   "glacier --root DIR",
		Short: "Serve vaults through the API of Amazon Glacier",
		Long: `Serve the vaults in a directory through the REST API of Amazon Glacier
(2012-06-01), so that any program made for that service can use them: offline,
against a disk or a NAS, or as a rehearsal with the service's delays and with
faults. Every DIR/NAME is a vault as firn vault create dir:DIR/NAME makes one.

The URL is printed when requests are accepted. Without --keys any signature is
good, and only this machine is served.`,
		Example: example("firn serve glacier --root /srv/vaults",
			"firn serve glacier --root /srv/vaults --listen 0.0.0.0:9900 --keys keys --tls-cert c.pem --tls-key k.pem",
			"firn serve glacier --root ./rehearsal --delay real --time-scale 3600 --inject 'UploadMultipartPart:500:0.1'"),
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.serveGlacier(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.root, "root", "", "the `DIR` that the vaults lie in; made where it is missing")
	f.StringVar(&o.listen, "listen", "127.0.0.1:9900", "`ADDR`ess and port; port 0 takes a free one")
	f.StringVar(&o.keys, "keys", "", "`FILE` of keys that requests must be signed with (AWS shared-credentials form)")
	f.StringVar(&o.cert, "tls-cert", "", "serve TLS with the certificate in `FILE` (PEM)")
	f.StringVar(&o.certKey, "tls-key", "", "`FILE` of the certificate's key (PEM)")
	f.StringVar(&o.account, "account", glacierserver.DefaultAccount, "the account `NUMBER` that is played")
	f.StringVar(&o.region, "region", glacierserver.DefaultRegion, "the `REGION` in ARNs, where a request does not name one")
	f.StringArrayVar(&o.delays, "delay", nil, "how long jobs take: `TIER=DURATION` (expedited, standard, bulk, inventory), one for all, or real")
	f.Float64Var(&o.scale, "time-scale", 1, "a simulated second lasts one `N`th of a real one")
	f.StringVar(&o.clock, "clock", "", "read the simulated time from `FILE`: a time, or an offset such as +36h")
	f.StringArrayVar(&o.inject, "inject", nil, "play a fault: `OPERATION:STATUS:PROBABILITY` (see the manual)")
	f.BoolVar(&o.provisioned, "provisioned-only", false, "refuse Expedited retrievals unless provisioned capacity was bought")
	f.IntVar(&o.maxVaults, "max-vaults", glacierserver.DefaultMaxVaults, "how `MANY` vaults there can be")
	f.StringVar(&o.bodyTimeout, "body-timeout", units.Duration(glacierserver.DefaultBodyTimeout), "break off a transfer that makes no progress for `DURATION`")
	f.StringVar(&o.accessLog, "access-log", "-", "append a line a request to `FILE`; -: stderr; empty: none")
	return cmd
}

func (c *command) serveGlacier(ctx context.Context, o serveGlacier) error {
	options, closeLog, err := c.glacierOptions(o)
	if err != nil {
		return err
	}
	defer closeLog()
	s, err := glacierserver.New(options)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Run(ctx, glacierserver.Listen{
		Address: o.listen, CertFile: o.cert, KeyFile: o.certKey,
		Ready: func(url string) error {
			if c.json {
				return c.document(struct {
					URL  string `json:"url"`
					Root string `json:"root"`
				}{url, options.Root})
			}
			c.printf("%s\n", url)
			return c.failure()
		},
	})
}

func (c *command) glacierOptions(o serveGlacier) (options glacierserver.Options, closeLog func(), err error) {
	closeLog = func() {}
	fail := func(err error) (glacierserver.Options, func(), error) { return options, closeLog, err }
	if o.root == "" {
		return fail(usage("serve glacier: --root is missing: the directory that the vaults lie in"))
	}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return fail(err)
	}
	if o.scale <= 0 {
		return fail(usage("--time-scale %g: must be above 0", o.scale))
	}
	if o.maxVaults < 1 {
		return fail(usage("--max-vaults %d: must be 1 at least", o.maxVaults))
	}
	options = glacierserver.Options{
		Root: root, Account: o.account, Region: o.region, MaxVaults: o.maxVaults, ProvisionedOnly: o.provisioned,
		Clock: &glacierserver.Clock{File: o.clock, Scale: o.scale},
	}
	if options.BodyTimeout, err = units.ParseDuration(o.bodyTimeout); err != nil || options.BodyTimeout == 0 {
		return fail(usage("--body-timeout %s: not a duration such as 60s", o.bodyTimeout))
	}
	if options.Delays, err = parseDelays(o.delays); err != nil {
		return fail(err)
	}
	for _, text := range o.inject {
		fault, err := glacierserver.ParseFault(text)
		if err != nil {
			return fail(fmt.Errorf("--inject: %w", err))
		}
		options.Faults = append(options.Faults, fault)
	}
	if o.keys != "" {
		if options.Keys, err = glacierserver.ReadKeys(o.keys); err != nil {
			return fail(err)
		}
	}
	var w io.Writer
	switch o.accessLog {
	case "":
	case "-":
		if !c.quiet {
			w = talkWriter{c.output}
		}
	default:
		f, err := os.OpenFile(o.accessLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return fail(err)
		}
		w, closeLog = f, func() { f.Close() }
	}
	if w != nil {
		options.Log = slog.New(slog.NewTextHandler(w, nil))
	}
	return options, closeLog, nil
}

// talkWriter is stderr for what writes lines.
type talkWriter struct{ o *output }

func (t talkWriter) Write(p []byte) (int, error) {
	t.o.err("", string(p))
	return len(p), nil
}

func parseDelays(list []string) (glacierserver.Delays, error) {
	var d glacierserver.Delays
	for _, text := range list {
		if strings.EqualFold(text, "real") {
			d = glacierserver.RealDelays()
			continue
		}
		tier, value, named := strings.Cut(text, "=")
		if !named {
			tier, value = "all", text
		}
		length, err := units.ParseDuration(value)
		if err != nil {
			return d, usage("--delay %s: %v", text, err)
		}
		to := map[string][]*time.Duration{
			"all":       {&d.Expedited, &d.Standard, &d.Bulk, &d.Inventory},
			"expedited": {&d.Expedited}, "bulk": {&d.Bulk}, "inventory": {&d.Inventory},
			"standard": {&d.Standard},
		}[strings.ToLower(tier)]
		if to == nil {
			return d, usage("--delay %s: no tier %q (expedited, standard, bulk, inventory)", text, tier)
		}
		for _, x := range to {
			*x = length
		}
	}
	return d, nil
}
