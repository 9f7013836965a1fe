package catalog

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// byteString is a string that may be any bytes: a JSON string where it is
// UTF-8, and otherwise {"hex": "…"}, because encoding/json would replace what is not.
type byteString string

func (s byteString) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(s)) {
		return json.Marshal(string(s))
	}
	return json.Marshal(map[string]string{"hex": hex.EncodeToString([]byte(s))})
}

func (s *byteString) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(s))
	}
	var v struct{ Hex string }
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	raw, err := hex.DecodeString(v.Hex)
	*s = byteString(raw)
	return err
}

func byteStrings(list []string) []byteString {
	if list == nil {
		return nil
	}
	out := make([]byteString, len(list))
	for i, s := range list {
		out[i] = byteString(s)
	}
	return out
}

func plainStrings(list []byteString) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

// headerRecord is a manifest.Header as it is kept. A test sees to it that no field is missing.
type headerRecord struct {
	SetID    string        `json:"setid"`
	Set      byteString    `json:"set"`
	Label    byteString    `json:"label"`
	Host     byteString    `json:"host"`
	Snap     string        `json:"snap"`
	N        uint64        `json:"n"`
	At       time.Time     `json:"at"`
	Made     time.Time     `json:"made"`
	Kind     snapshot.Kind `json:"kind"`
	Base     string        `json:"base,omitempty"`
	BaseHash string        `json:"basehash,omitempty"`
	Stream   string        `json:"stream"`
	Point    byteString    `json:"point,omitempty"`
	PointID  byteString    `json:"pointid,omitempty"`
	Compress string        `json:"compress"`
	Encrypt  string        `json:"encrypt"`
	Paths    []byteString  `json:"paths"`
	Must     []byteString  `json:"must"`
}

func headerJSON(h *manifest.Header) ([]byte, error) {
	r := headerRecord{
		SetID: h.SetID, Set: byteString(h.Set), Label: byteString(h.Label), Host: byteString(h.Host),
		Snap: h.Snap, N: h.N, At: h.At.UTC(), Made: h.Made.UTC(), Kind: h.Kind, Base: h.Base,
		Stream: h.Stream, Point: byteString(h.Point), PointID: byteString(h.PointID), Compress: h.Compress, Encrypt: h.Encrypt,
		Paths: byteStrings(h.Paths), Must: byteStrings(h.Must),
	}
	if h.BaseHash != (manifest.Hash{}) {
		r.BaseHash = hex.EncodeToString(h.BaseHash[:])
	}
	return json.Marshal(r)
}

func parseHeader(b []byte) (manifest.Header, error) {
	var r headerRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return manifest.Header{}, fmt.Errorf("header: %w", err)
	}
	h := manifest.Header{
		SetID: r.SetID, Set: string(r.Set), Label: string(r.Label), Host: string(r.Host),
		Snap: r.Snap, N: r.N, At: r.At.UTC(), Made: r.Made.UTC(), Kind: r.Kind, Base: r.Base,
		Stream: r.Stream, Point: string(r.Point), PointID: string(r.PointID), Compress: r.Compress, Encrypt: r.Encrypt,
		Paths: plainStrings(r.Paths), Must: plainStrings(r.Must),
	}
	if r.BaseHash != "" {
		if n, err := hex.Decode(h.BaseHash[:], []byte(r.BaseHash)); err != nil || n != len(h.BaseHash) {
			return h, fmt.Errorf("header: base hash %q", r.BaseHash)
		}
	}
	return h, nil
}

// checkpointRecord is a Checkpoint as it is kept.
type checkpointRecord struct {
	Path    byteString `json:"path"`
	Started bool       `json:"started"`
	InFile  bool       `json:"infile,omitempty"`
	State   []byte     `json:"state,omitempty"`
}

func checkpointJSON(c Checkpoint) ([]byte, error) {
	return json.Marshal(checkpointRecord{byteString(c.Path), c.Started, c.InFile, c.State})
}

func parseCheckpoint(b []byte, volume int) (Checkpoint, error) {
	var r checkpointRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	return Checkpoint{Volume: volume, Path: string(r.Path), Started: r.Started, InFile: r.InFile, State: r.State}, nil
}
