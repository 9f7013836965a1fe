package restore

// fillAdopted gets the next bytes of a stream that another program stored as one archive.
func (s *streamReader) fillAdopted() error {
	snap := &s.r.res.Chain[s.i]
	if s.whole == nil {
		v, err := s.r.o.Catalog.Volume(s.ctx, snap.ID, 1)
		if err != nil {
			return err
		}
		s.v = v
		if s.whole, err = s.r.desk.OpenAdopted(s.ctx, &s.v, &snap.Header); err != nil {
			return err
		}
	}
	var err error
	s.buf, err = s.whole.Next()
	s.r.res.Raw += int64(len(s.buf)) // nobody knew it before
	return err
}
