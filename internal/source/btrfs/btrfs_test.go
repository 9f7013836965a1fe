package btrfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

const set = "01JD9ZK3V7Q4W8X2M5N6P7R8S9"

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// disk mounts a btrfs of its own, with a subvolume v.
func disk(t testing.TB) string {
	t.Helper()
	mustrun.Root(t)
	mustrun.Tool(t, "btrfs", "mkfs.btrfs", "mount")
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "truncate", "-s", "150M", image)
	run(t, "mkfs.btrfs", "-q", image)
	if out, err := exec.Command("mount", "-o", "loop", image, mnt).CombinedOutput(); err != nil {
		mustrun.Skip(t, "no loop device: "+string(out))
	}
	t.Cleanup(func() { run(t, "umount", mnt) })
	run(t, "btrfs", "subvolume", "create", mnt+"/v")
	return mnt
}

func TestReal(t *testing.T) {
	t.Parallel()
	sourcetest.StreamSuite(t, func(t testing.TB) sourcetest.StreamBench {
		mnt := disk(t)
		open := func(program string) *Source {
			s, err := New(Options{Subvolume: mnt + "/v", Set: set, Program: program})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		broken := filepath.Join(t.TempDir(), "btrfs")
		script := "#!/bin/sh\n[ \"$1\" = send ] || exec btrfs \"$@\"\nbtrfs \"$@\" | head -c 100\nexit 1\n"
		if err := os.WriteFile(broken, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		changes := 0
		return sourcetest.StreamBench{
			Stream: open(""), Failing: open(broken),
			Change: func(t testing.TB) {
				changes++
				data := []byte(strings.Repeat(fmt.Sprintf("change %d\n", changes), 10_000))
				if err := os.WriteFile(fmt.Sprintf("%s/v/file%d", mnt, changes%2), data, 0o644); err != nil {
					t.Fatal(err)
				}
			},
			Foreign: func(t testing.TB) func() bool {
				dir := mnt + "/v/.firn/firn-01JD9ZK3V7Q4W8X2M5N6P7R8T0-2020-01-01T00.00.00Z-aaaaaa" // another set's
				if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
					t.Fatal(err)
				}
				run(t, "btrfs", "subvolume", "snapshot", "-r", mnt+"/v", dir)
				return func() bool { _, err := os.Stat(dir); return err == nil }
			},
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Subvolume: "rel"}, {Existing: true}, {Existing: true, Match: []string{"rel/*"}}, {Existing: true, Match: []string{"/x/["}}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
	if _, err := NewReceiver("/no/such/directory", ""); err == nil {
		t.Error("a directory that is not there receives")
	}
}
