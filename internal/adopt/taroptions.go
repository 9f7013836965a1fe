package adopt

import (
	"path/filepath"
	"slices"
	"strings"
)

// tarOptions are what glacier-backup.py gives to GNU tar, as keys of a set.
type tarOptions struct {
	tags     []string // exclude-if-present
	excludes []string // patterns of tar's
	compress string   // empty: not at all
	oneFS    bool
	other    bool     // the patterns are not read as tar does by default
	lost     []string // options that have no counterpart, as they are written
}

// Options of tar that say what Firn does anyway, or what is said on a terminal.
func tarHarmless() []string {
	return []string{"--preserve-permissions", "--same-permissions", "--same-owner", "--numeric-owner", "--ignore-failed-read", "--acls", "--xattrs", "--selinux",
		"--sparse", "--verbose", "--totals", "--utc", "--full-time", "--block-number", "--no-ignore-command-error", "--create", "--posix", "--recursion", "--no-auto-compress"}
}

// What --exclude-vcs leaves out, by the manual of GNU tar 1.34.
func tarVCS() []string {
	return []string{"CVS", "RCS", "SCCS", ".git", ".gitignore", ".gitmodules", ".gitattributes", ".cvsignore", ".svn", ".arch-ids", "{arch}", "=RELEASE-ID",
		"=meta-update", "=update", ".bzr", ".bzrignore", ".bzrtags", ".hg", ".hgignore", ".hgtags", "_darcs"}
}

// parseTarOptions reads the words as tar does that gets them one by one.
func parseTarOptions(words []string) tarOptions {
	var o tarOptions
	for i := 0; i < len(words); i++ {
		w := words[i]
		name, value, given := strings.Cut(w, "=")
		if slices.Contains([]string{"--exclude", "--exclude-tag", "--exclude-tag-under", "--exclude-tag-all"}, name) && !given && i+1 < len(words) {
			i++
			value, w = words[i], w+" "+words[i]
		}
		switch {
		case name == "--exclude":
			o.excludes = append(o.excludes, value)
		case name == "--exclude-tag":
			o.tags = append(o.tags, value)
		case w == "--exclude-caches":
			o.tags = append(o.tags, "CACHEDIR.TAG")
		case w == "--exclude-vcs":
			o.excludes = append(o.excludes, tarVCS()...)
		case w == "--exclude-backups":
			o.excludes = append(o.excludes, "*~", "#*#", ".#*")
		case w == "--anchored" || w == "--no-wildcards":
			o.other, o.lost = true, append(o.lost, w)
		case w == "--one-file-system":
			o.oneFS = true
		case w == "--gzip" || w == "--bzip2" || w == "--zstd":
			o.compress = w[2:]
		case slices.Contains(tarHarmless(), w) || name == "--format" || name == "--warning" || name == "--sort" || name == "--atime-preserve" || name == "--blocking-factor" || name == "--record-size":
		case strings.HasPrefix(w, "-") && !strings.HasPrefix(w, "--") && len(w) > 1 && strings.Trim(w[1:], "pSvzj") == "":
			if strings.Contains(w, "z") {
				o.compress = "gzip"
			} else if strings.Contains(w, "j") {
				o.compress = "bzip2"
			}
		default:
			o.lost = append(o.lost, w)
		}
	}
	return o
}

// patterns are the excludes as .gitignore has them, relative to the directory that is backed up. A pattern of tar's holds from any part of a path
// on, the directory's own path included, and its * goes over slashes. What is taken over leaves out no more than it does with tar, perhaps less: it
// is worse to leave out too much.
func (o tarOptions) patterns(dir string) (taken, lost []string) {
	for _, p := range o.excludes {
		if o.other || p == "" || strings.HasSuffix(p, "/") || strings.ContainsAny(p, "\\\n") {
			lost = append(lost, p)
			continue
		}
		for head := dir; head != "" && head != "/"; { // the pattern may name the directory itself, or the end of its path
			if rest, below := strings.CutPrefix(p, head+"/"); below && rest != "" {
				taken = append(taken, "/"+rest)
			}
			if strings.HasPrefix(head, "/") {
				head = head[1:]
			} else {
				_, head, _ = strings.Cut(head, "/")
			}
		}
		switch {
		case strings.HasPrefix(p, "/"):
			if strings.ContainsAny(p, "*?[") {
				lost = append(lost, p) // it may be one for what is in dir
			}
			continue // taken already, or of another directory
		case strings.Contains(p, "/"):
			p = "**/" + p
		case strings.HasPrefix(p, "!") || strings.HasPrefix(p, "#"):
			p = `\` + p
		}
		taken = append(taken, p)
	}
	return taken, lost
}

// tarKeys are the keys that the options come to for a set of a directory. What has no counterpart is told of once.
func (s *pyState) tarKeys(f *Found, dir string) ([]Key, error) {
	options, _, err := s.conf.value(pySection, "tar_options")
	if err != nil {
		return nil, err
	}
	o := parseTarOptions(strings.Fields(options))
	exclude, lost := o.patterns(filepath.Clean(dir))
	for _, p := range lost {
		o.lost = append(o.lost, "--exclude="+p)
	}
	for _, w := range o.lost {
		text := "[" + pySection + "] tar_options: " + oneLine(w) + " has no counterpart: look at the set"
		if !slices.Contains(f.Notices, text) {
			f.notice("%s", text)
		}
	}
	var list []Key
	if len(o.tags) > 0 {
		list = append(list, Key{"exclude-if-present", texts(o.tags...)})
	}
	if len(exclude) > 0 {
		list = append(list, Key{"exclude", texts(exclude...)})
	}
	if o.oneFS {
		list = append(list, Key{"one-file-system", "true"})
	}
	return list, nil
}

// tarCompress is what the options say of compression: "none" where they say nothing.
func (s *pyState) tarCompress() (string, error) {
	options, _, err := s.conf.value(pySection, "tar_options")
	if err != nil {
		return "", err
	}
	return first(parseTarOptions(strings.Fields(options)).compress, "none"), nil
}
