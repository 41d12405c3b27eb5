package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
)

// The HTTP level of an endpoint: it sits in front of the simulator's mux,
// counts and delays calls, applies the rules of level http and renames one type.

var (
	sdkMethod = regexp.MustCompile(`<(?:\w+:)?Body[^>]*>\s*<(?:(\w+):)?(\w+)`)

	// vCenter's switches are of type VmwareDistributedVirtualSwitch. The
	// simulator applies updates to a field list that it finds by the type's name
	// and has one for DistributedVirtualSwitch only, so the concrete type exists
	// on the wire only (govmomi pull request #4130 would make it the real one).
	toSimulator = replacer{
		{`"VmwareDistributedVirtualSwitch"`, `"DistributedVirtualSwitch"`},
		{`>VmwareDistributedVirtualSwitch<`, `>DistributedVirtualSwitch<`},
	}
	toClient = replacer{{`type="DistributedVirtualSwitch"`, `type="VmwareDistributedVirtualSwitch"`}}
)

type replacer [][2]string

func (r replacer) replace(b []byte) []byte {
	for _, p := range r {
		b = bytes.ReplaceAll(b, []byte(p[0]), []byte(p[1]))
	}
	return b
}

// wrap puts the HTTP level of the endpoint named at in front of next.
func (w *world) wrap(at string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, req *http.Request) {
		admin := isAdmin(req.UserAgent())
		counted := at
		if admin {
			counted = adminName
		}
		if strings.HasSuffix(req.URL.Path, "/vimServiceVersions.xml") {
			w.calls.add(counted, versionsRequest)
			next.ServeHTTP(out, req)
			return
		}
		if req.Method != http.MethodPost || !strings.HasPrefix(req.URL.Path, "/sdk") {
			next.ServeHTTP(out, req)
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the client is gone
		}
		body = toSimulator.replace(body)
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		method := ""
		if m := sdkMethod.FindSubmatch(body); m != nil {
			method = string(m[2])
		}
		w.calls.add(counted, method)
		if !admin {
			if !w.freezer.wait(req.Context(), at) {
				drop(out)
				return
			}
			w.latency.wait()
			if r := w.rules.match(levelHTTP, at, method, ""); r != nil && r.spoil(out, req, next) {
				return
			}
		}
		answer := &recorder{header: out.Header(), code: http.StatusOK}
		next.ServeHTTP(answer, req)
		if !admin && !w.freezer.wait(req.Context(), at) { // it came before the frost
			drop(out)
			return
		}
		out.WriteHeader(answer.code)
		_, _ = out.Write(toClient.replace(answer.body.Bytes())) // a client that is gone is no error here
	})
}

// spoil does to a request what the rule says; it tells whether that answered it.
func (r *rule) spoil(out http.ResponseWriter, req *http.Request, next http.Handler) bool {
	r.wait()
	if r.Status != 0 {
		out.WriteHeader(r.Status)
		return true
	}
	if r.Drop == "" {
		return false
	}
	if r.Drop == "after" {
		next.ServeHTTP(&recorder{header: http.Header{}}, req)
	}
	drop(out)
	return true
}

// drop resets the connection of a request.
func drop(out http.ResponseWriter) {
	hijacker, ok := out.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		if tcp, ok := t.NetConn().(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // RST instead of FIN
		}
	}
	_ = conn.Close()
}

// recorder keeps an answer until it can be rewritten.
type recorder struct {
	header http.Header
	body   bytes.Buffer
	code   int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(code int)        { r.code = code }
