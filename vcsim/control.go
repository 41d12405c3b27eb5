package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// The control API: plain HTTP and JSON on loopback, for the programs that drive
// the simulator. README.md describes it.

// maxWait bounds a long poll, so that a client that is gone is noticed.
const maxWait = 60 * time.Second

func (s *server) controlMux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, s.v.calls.view(s.endpointNames()))
	})
	mux.HandleFunc("DELETE /calls", func(w http.ResponseWriter, _ *http.Request) {
		s.v.calls.reset()
		reply(w, struct{}{})
	})
	mux.HandleFunc("POST /latency", func(w http.ResponseWriter, r *http.Request) {
		if d, ok := readMilliseconds(w, r); ok {
			s.v.latency.set(d)
			reply(w, struct{}{})
		}
	})
	mux.HandleFunc("POST /migration-delay", func(w http.ResponseWriter, r *http.Request) {
		if d, ok := readMilliseconds(w, r); ok {
			s.v.moves.setDelay(d)
			reply(w, struct{}{})
		}
	})
	mux.HandleFunc("POST /migration-failure", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Count *int `json:"count"`
		}
		if !decode(w, r, &body) {
			return
		}
		if body.Count == nil || *body.Count < 0 {
			refuse(w, http.StatusBadRequest, "count: allowed is a number of moves, 0 or more")
			return
		}
		s.v.moves.setFailures(*body.Count)
		reply(w, struct{}{})
	})
	mux.HandleFunc("POST /port-reset", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			On *bool `json:"on"`
		}
		if !decode(w, r, &body) {
			return
		}
		if body.On == nil {
			refuse(w, http.StatusBadRequest, "on: allowed are true and false")
			return
		}
		s.v.keepsPorts.Store(!*body.On)
		reply(w, struct{}{})
	})
	mux.HandleFunc("POST /freeze", func(w http.ResponseWriter, r *http.Request) {
		if at, ok := s.readEndpoint(w, r); ok {
			s.v.freezer.freeze(at)
			reply(w, struct{}{})
		}
	})
	mux.HandleFunc("POST /thaw", func(w http.ResponseWriter, r *http.Request) {
		if at, ok := s.readEndpoint(w, r); ok {
			s.v.freezer.thaw(at)
			reply(w, struct{}{})
		}
	})
	mux.HandleFunc("GET /nics", s.getNics)
	mux.HandleFunc("POST /guest-net", s.reportFromGuest)
	mux.HandleFunc("POST /host-power", s.powerHost)
	mux.HandleFunc("POST /drs-move", s.moveByDRS)
	mux.HandleFunc("POST /updates/hold", func(w http.ResponseWriter, _ *http.Request) {
		s.v.gate.hold()
		reply(w, struct{}{})
	})
	mux.HandleFunc("POST /updates/release", func(w http.ResponseWriter, _ *http.Request) {
		s.v.gate.release()
		reply(w, struct{}{})
	})
	mux.HandleFunc("GET /rules", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.v.rules.list()) })
	mux.HandleFunc("POST /rules", s.addRule)
	mux.HandleFunc("DELETE /rules", func(w http.ResponseWriter, _ *http.Request) {
		s.v.rules.clear()
		reply(w, struct{}{})
	})
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, _ *http.Request) {
		counts := map[string]int{}
		for _, name := range s.endpointNames() {
			counts[name] = len(s.sessions(name))
		}
		reply(w, counts)
	})
	mux.HandleFunc("POST /sessions/expire", s.expireSessions)
	mux.HandleFunc("POST /sync", func(w http.ResponseWriter, _ *http.Request) {
		s.v.worker.sync()
		reply(w, struct{}{})
	})
	return mux
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // a client that is gone is no error here
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return false
	}
	return true
}

func readMilliseconds(w http.ResponseWriter, r *http.Request) (time.Duration, bool) {
	var body struct {
		MS *float64 `json:"ms"`
	}
	if !decode(w, r, &body) {
		return 0, false
	}
	if body.MS == nil || *body.MS < 0 {
		refuse(w, http.StatusBadRequest, "ms: allowed is a number of milliseconds, 0 or more")
		return 0, false
	}
	return time.Duration(*body.MS * float64(time.Millisecond)), true
}

// readEndpoint reads the name of an endpoint, vCenter if none is given.
func (s *server) readEndpoint(w http.ResponseWriter, r *http.Request) (string, bool) {
	body := struct {
		At string `json:"at"`
	}{At: vcenterName}
	if !decode(w, r, &body) {
		return "", false
	}
	if _, _, ok := s.endpoint(body.At); !ok {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("at %q: allowed are %v", body.At, s.endpointNames()))
		return "", false
	}
	return body.At, true
}

func (s *server) getNics(w http.ResponseWriter, r *http.Request) {
	after, wait := int64(-1), 0.0
	var err error
	if text := r.URL.Query().Get("after"); text != "" {
		if after, err = strconv.ParseInt(text, 10, 64); err != nil {
			refuse(w, http.StatusBadRequest, "after: allowed is a generation")
			return
		}
	}
	if text := r.URL.Query().Get("wait_s"); text != "" {
		if wait, err = strconv.ParseFloat(text, 64); err != nil || wait < 0 {
			refuse(w, http.StatusBadRequest, "wait_s: allowed is a number of seconds, 0 or more")
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(maxWait, time.Duration(wait*float64(time.Second))))
	defer cancel()
	reply(w, s.v.nicsAfter(ctx, after))
}

func (s *server) addRule(w http.ResponseWriter, r *http.Request) {
	var added rule
	if !decode(w, r, &added) {
		return
	}
	if err := added.compile(); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if _, _, ok := s.endpoint(added.At); !ok && added.At != "*" {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("at %q: allowed are * and %v", added.At, s.endpointNames()))
		return
	}
	if err := s.v.rules.add(&added); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	reply(w, map[string]int64{"id": added.ID})
}

func (s *server) expireSessions(w http.ResponseWriter, r *http.Request) {
	at := r.URL.Query().Get("at")
	if at == "" {
		at = vcenterName
	}
	service, registry, ok := s.endpoint(at)
	if !ok {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("at %q: allowed are %v", at, s.endpointNames()))
		return
	}
	reply(w, map[string]int{"expired": endSessions(service, registry)})
}

// sessions are the keys of an endpoint's sessions, without those of drivers.
func (s *server) sessions(at string) []string {
	service, registry, _ := s.endpoint(at)
	return sessionKeys(service, registry)
}
