package adopt

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/treehash"
)

// glacierCmd is glacier-cmd. It keeps its records in SimpleDB, so that what it prints of them is read.
func glacierCmd() Tool {
	return Tool{
		Name:  "glacier-cmd",
		Short: "Take over the configuration of glacier-cmd, and what it printed",
		Long: `Take over what glacier-cmd printed with --output json or --output csv: of inventory, search (its records in
SimpleDB) and upload; and its configuration, ~/.glacier-cmd, which tells the region. The AWS CLI's
output of an inventory job is read too. An inventory of glacier-cmd does not tell its vault:
--vault VAULT does. Keys in the configuration are not looked at.`,
		File:  "FILE…",
		Most:  100,
		Flags: []string{FlagRegion, FlagAccount, FlagVault},
		Read:  readGlacierCmd,
	}
}

// cmdItem is an archive as glacier-cmd prints it. Three commands have three sets of names.
type cmdItem struct {
	id, vault, region, account, name, description, hash string
	size                                                int64
	at                                                  time.Time
}

func readGlacierCmd(ctx context.Context, files []string, o Options) (Found, error) {
	var f Found
	var items []cmdItem
	region := ""
	for _, file := range files {
		kind, err := sortOf(file)
		var more []cmdItem
		switch {
		case err != nil:
		case kind == sortJSON:
			more, err = cmdJSON(file)
		case kind == sortText:
			more, err = cmdText(file, &region, &f)
		default:
			err = failure.Errorf(failure.Usage, "%s is nothing that glacier-cmd prints", file)
		}
		if err != nil {
			return f, err
		}
		items = append(items, more...)
	}
	seen := map[string]int{}
	for _, it := range items {
		p := Place{Name: it.vault, Region: it.region, Account: it.account}
		if p.Region == "" {
			p.Region = region
		}
		url, err := o.VaultURL(ctx, p)
		if err != nil {
			return f, err
		}
		r := catalog.ArchiveRecord{Vault: url, Name: it.name, Archive: coldstore.Archive{ID: it.id, Description: it.description, Size: it.size, Created: it.at}}
		if it.hash != "" {
			if r.TreeHash, err = treehash.Parse(it.hash); err != nil {
				f.notice("archive %s: its hash %q is not a tree hash and was left out", oneLine(it.id), oneLine(it.hash))
			}
		}
		// The record of an upload tells the name, an inventory the rest.
		if i, ok := seen[url+"\x00"+it.id]; ok {
			mergeRecord(&f.Archives[i], r)
			continue
		}
		seen[url+"\x00"+it.id] = len(f.Archives)
		f.Archives = append(f.Archives, r)
	}
	return f, nil
}

// mergeRecord puts what more tells into what a record has not.
func mergeRecord(r *catalog.ArchiveRecord, more catalog.ArchiveRecord) {
	if r.Name == "" {
		r.Name = more.Name
	}
	if r.Description == "" {
		r.Description = more.Description
	}
	if r.Size == 0 {
		r.Size = more.Size
	}
	if r.TreeHash.IsZero() {
		r.TreeHash = more.TreeHash
	}
	if r.Created.IsZero() {
		r.Created = more.Created
	}
}

// cmdJSON reads a list of objects, one object, or an inventory with its ArchiveList. It goes through the file
// element by element: an inventory can be large.
func cmdJSON(file string) ([]cmdItem, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	var items []cmdItem
	arn := ""
	d := json.NewDecoder(f)
	d.UseNumber()
	list := func() error {
		for d.More() {
			var m map[string]any
			if err := d.Decode(&m); err != nil {
				return err
			}
			it, err := cmdArchive(func(key string) string { return jsonText(m[key]) })
			if err != nil {
				return fmt.Errorf("element %d: %w", len(items)+1, err)
			}
			items = append(items, it)
		}
		_, err := d.Token()
		return err
	}
	err = func() error {
		tok, err := d.Token()
		if err != nil {
			return err
		}
		if tok == json.Delim('[') {
			return list()
		}
		single := map[string]string{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return err
			}
			if key == "ArchiveList" {
				if tok, err := d.Token(); err != nil || tok != json.Delim('[') {
					return errors.Join(err, errors.New("ArchiveList is not a list"))
				}
				if err := list(); err != nil {
					return err
				}
				continue
			}
			var v any
			if err := d.Decode(&v); err != nil {
				return err
			}
			if key == "VaultARN" {
				arn = jsonText(v)
			}
			single[fmt.Sprint(key)] = jsonText(v)
		}
		if len(items) == 0 && arn == "" {
			it, err := cmdArchive(func(key string) string { return single[key] })
			items = append(items, it)
			return err
		}
		return nil
	}()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, failure.Errorf(failure.Damaged, "read %s: it ends too early", file)
	}
	if err != nil {
		return nil, failure.Wrap(failure.Usage, fmt.Errorf("read %s: %w", file, err))
	}
	if p := strings.Split(arn, ":"); len(p) == 6 && strings.HasPrefix(p[5], "vaults/") {
		for i := range items {
			items[i].region, items[i].account, items[i].vault = p[3], p[4], strings.TrimPrefix(p[5], "vaults/")
		}
	}
	return items, nil
}

func jsonText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// cmdText reads CSV, or the configuration.
func cmdText(file string, region *string, f *Found) ([]cmdItem, error) {
	data, err := head(file)
	if err != nil {
		return nil, err
	}
	if line, _, _ := strings.Cut(string(data), "\n"); strings.TrimRight(line, "\r") == inventoryHeader {
		return inventoryCSV(file)
	}
	if !strings.HasPrefix(strings.TrimLeft(string(data), " \ufeff"), `"`) {
		return nil, cmdConfig(file, region, f)
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close() // it was only read
	r := csv.NewReader(in)
	header, err := r.Read()
	if err != nil {
		return nil, failure.Wrap(failure.Usage, fmt.Errorf("read %s: %w", file, err))
	}
	column := map[string]int{}
	for i, h := range header {
		column[h] = i
	}
	var items []cmdItem
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err == nil {
			var it cmdItem
			it, err = cmdArchive(func(key string) string {
				if i, ok := column[key]; ok {
					return row[i]
				}
				return ""
			})
			items = append(items, it)
		}
		if err != nil {
			line, _ := r.FieldPos(0)
			return nil, failure.Wrap(failure.Usage, fmt.Errorf("read %s: line %d: %w", file, line, err))
		}
	}
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// cmdArchive reads an element of an inventory, a search or an upload.
func cmdArchive(get func(string) string) (cmdItem, error) {
	it := cmdItem{
		id: first(get("ArchiveId"), get("archive_id"), get("Created archive with ID"), get("Archive ID")), vault: get("vault"), region: get("region"),
		name:        first(get("filename"), get("Uploaded file")),
		description: first(get("ArchiveDescription"), get("description"), get("Archive Description")),
		hash:        first(get("SHA256TreeHash"), get("hash"), get("Archive SHA256 tree hash"), get("SHA256 tree hash")),
	}
	if it.id == "" {
		return it, failure.Errorf(failure.Usage, "there is no archive id: this is nothing that inventory, search or upload print")
	}
	if it.name == "Data from stdin." {
		it.name = ""
	}
	if p := strings.Split(get("location"), "/"); len(p) > 3 && p[0] == "" && p[2] == "vaults" {
		it.account, it.vault = p[1], first(it.vault, p[3])
	}
	if s := first(get("Size"), get("size")); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return it, failure.Errorf(failure.Usage, "archive %s: %q is not a size", oneLine(it.id), oneLine(s))
		}
		it.size = n
	}
	at := first(get("CreationDate"), get("date"), get("Uploaded"))
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999", "2006-01-02T15:04:05.999999", "2006-01-02 15:04:05 UTC"} {
		if t, err := time.Parse(layout, at); err == nil {
			it.at = t.UTC()
			break
		}
	}
	return it, nil
}

// cmdConfig reads the region, and tells what notifications it asks for: those are set for each vault.
func cmdConfig(file string, region *string, f *Found) error {
	data, err := readSmall(file, maxConfig)
	if err != nil {
		return err
	}
	in, err := parseINI(string(data))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if !in.has("aws") && !in.has("glacier") {
		return failure.Errorf(failure.Usage, "read %s: there are neither [aws] nor [glacier]: this is not the configuration of glacier-cmd", file)
	}
	if v, ok := in.get("glacier", "region"); ok {
		*region = v
	}
	isTopic := func(section string) bool { return strings.HasPrefix(section, "SNS:") }
	for _, s := range in.sections {
		// Sections of topics are all that counts where there are some; and a vault tells one topic only.
		if isTopic(s) || s == "SNS" && !slices.ContainsFunc(in.sections, isTopic) {
			for _, command := range snsCommands(in, s, *region) {
				f.notice("[%s]: %s", oneLine(s), oneLine(command))
			}
		}
	}
	return nil
}

// snsCommands are the commands that do what glacier-cmd's sns sync does for a section [SNS] or [SNS:TOPIC]: one for
// each vault, or one for all of the region where none is named.
func snsCommands(in *ini, section, region string) []string {
	topic, named := strings.CutPrefix(section, "SNS:")
	if !named {
		topic, _ = in.get(section, "topic")
		topic = first(topic, "aws-glacier-notifications")
	}
	tail := " " + shellWord(topic)
	method, _ := in.get(section, "method")
	for m := range strings.SplitSeq(method, ";") {
		protocol, endpoint, ok := strings.Cut(strings.TrimSpace(m), ",")
		if _, rest, url := strings.Cut(endpoint, "://"); url && strings.Contains(rest, "@") {
			endpoint = "…" // a password may stand there
		}
		if ok {
			tail += " --subscribe " + shellWord(strings.TrimSpace(protocol)+":"+strings.TrimSpace(endpoint))
		}
	}
	vaults, _ := in.get(section, "vaults")
	var commands []string
	for v := range strings.SplitSeq(vaults, ",") {
		if v = strings.TrimSpace(v); v != "" {
			commands = append(commands, "firn vault notify set "+shellWord("glacier://"+first(region, "REGION")+"/"+v)+tail)
		}
	}
	if commands == nil {
		commands = []string{"firn vault notify set " + shellWord("glacier://"+first(region, "REGION")) + tail}
	}
	return commands
}

// shellWord writes a word as a shell reads it.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@+,%=") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
