package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/units"
)

// bar draws a meter on a terminal: bytes, files, rate and time left.
type bar struct {
	container *mpb.Progress
	line      *mpb.Bar
}

// startBar draws m until stop. out is a terminal.
func startBar(out io.Writer, label string, m *progress.Meter) *bar {
	c := mpb.New(mpb.WithOutput(out), mpb.WithAutoRefresh(), mpb.WithRefreshRate(200*time.Millisecond))
	filler := mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		_, err := io.WriteString(w, barText(label, m.Report(), s.AvailableWidth))
		return err
	})
	return &bar{c, c.MustAdd(1, filler, mpb.BarRemoveOnComplete())}
}

// above writes whole lines above the bar.
func (b *bar) above(text string) { _, _ = io.WriteString(b.container, text) }

// stop takes the bar away.
func (b *bar) stop() {
	b.line.Abort(true)
	b.container.Wait()
}

// barText is the bar's line, at most width columns.
func barText(label string, r progress.Report, width int) string {
	parts := []string{clean(label)}
	if f := r.Fraction(); f >= 0 {
		parts = append(parts, fmt.Sprintf("%3d%%", int(f*100)), fmt.Sprintf("%s of %s", units.Size(r.Bytes), units.Size(r.TotalBytes)),
			fmt.Sprintf("%s of %s files", count(r.Files), count(r.TotalFiles)))
	} else {
		parts = append(parts, units.Size(r.Bytes), count(r.Files)+" files")
	}
	parts = append(parts, units.Rate(r.Rate))
	if r.Sent > 0 {
		parts = append(parts, units.Size(r.Sent)+" sent")
	}
	if r.ETA > 0 {
		parts = append(parts, units.Clock(r.ETA)+" left")
	} else {
		parts = append(parts, units.Clock(r.Elapsed))
	}
	text := strings.Join(parts, "  ")
	if f := r.Fraction(); f >= 0 {
		if room := min(width-len([]rune(text))-5, 40); room >= 10 {
			full := int(f * float64(room))
			text += "  [" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]"
		}
	}
	if short := []rune(text); len(short) > width {
		text = string(short[:max(width, 0)])
	}
	return text
}
