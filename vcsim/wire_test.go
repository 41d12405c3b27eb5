package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

// post sends the body of a SOAP call with the fixture's session, and returns the answer as text.
func (f *fixture) post(body string) string {
	f.t.Helper()
	return f.postAs("", body)
}

func (f *fixture) postAs(userAgent, body string) string {
	f.t.Helper()
	envelope := `<?xml version="1.0"?><Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>` + body + `</Body></Envelope>`
	req, err := http.NewRequestWithContext(f.ctx, http.MethodPost, f.client.URL().String(), bytes.NewBufferString(envelope))
	if err != nil {
		f.t.Fatal(err)
	}
	if userAgent != "" {
		req.Header.Set("User-Agent", userAgent)
	}
	for _, c := range f.client.Jar.Cookies(f.client.URL()) {
		req.AddCookie(c)
	}
	res, err := f.verified().Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(answer)
}

// verified is an HTTP client that trusts vCenter's certificate from the ready line.
func (f *fixture) verified() *http.Client {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(f.server.ready.VCenter.PEM)) {
		f.t.Fatal("no certificate in the ready line")
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

const currentTime = `<CurrentTime xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this></CurrentTime>`

func TestSwitchIsOfTheVmwareTypeOnTheWire(t *testing.T) {
	f := start(t)
	folder := `<RetrieveProperties xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet><propSet>` +
		`<type>VmwareDistributedVirtualSwitch</type><pathSet>name</pathSet></propSet><objectSet><obj type="VmwareDistributedVirtualSwitch">` +
		f.dvs().Self.Value + `</obj></objectSet></specSet></RetrieveProperties>`
	answer := f.post(folder)
	if !contains(answer, `type="VmwareDistributedVirtualSwitch">`+f.dvs().Self.Value) || !contains(answer, "dvs-tf") {
		t.Errorf("answer %s", answer)
	}
}

func TestCallsAreCountedByEndpointAndMethod(t *testing.T) {
	f := start(t)
	host := f.esxi("esx-b")
	f.control("DELETE", "/calls", nil)
	f.post(currentTime)
	f.post(currentTime)
	f.postAs("pyvmomi vcsim-admin/1", currentTime)
	if _, err := methods.GetCurrentTime(f.ctx, host); err != nil {
		t.Fatal(err)
	}
	res, err := f.verified().Get("https://" + f.server.ready.VCenter.Address + "/sdk/vimServiceVersions.xml")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	_, counts := f.control("GET", "/calls", nil)
	for at, want := range map[string]map[string]any{
		"vcenter": {"CurrentTime": 2.0, "vimServiceVersions": 1.0},
		"esx-a":   {},
		"esx-b":   {"CurrentTime": 1.0},
		"admin":   {"CurrentTime": 1.0},
	} {
		got := counts.(map[string]any)[at].(map[string]any)
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", at, got, want)
		}
		for method, n := range want {
			if got[method] != n {
				t.Errorf("%s: %s %v, want %v", at, method, got[method], n)
			}
		}
	}
}

func TestLatencyDelaysEveryCallButADriversOne(t *testing.T) {
	f := start(t)
	if status, _ := f.control("POST", "/latency", map[string]int{"ms": 80}); status != 200 {
		t.Fatalf("status %d", status)
	}
	took := func(agent string) time.Duration {
		begin := time.Now()
		f.postAs(agent, currentTime)
		return time.Since(begin)
	}
	if d := took(""); d < 80*time.Millisecond {
		t.Errorf("call took %v", d)
	}
	if d := took("vcsim-admin"); d >= 80*time.Millisecond {
		t.Errorf("a driver's call took %v", d)
	}
}

func TestCertificateNamesTheAddress(t *testing.T) {
	f := start(t)
	// verified checks the name 127.0.0.1 against the certificate of the ready line.
	if answer := f.post(currentTime); !contains(answer, "CurrentTimeResponse") {
		t.Errorf("answer %s", answer)
	}
	cert, err := newCertificate("esx-a", "192.0.2.7:443")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.tls.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := leaf.VerifyHostname("192.0.2.7"); err != nil {
		t.Error(err)
	}
	if len(cert.sha256) != 64 {
		t.Errorf("sha256 %q", cert.sha256)
	}
}

func TestWrongPasswordIsRefused(t *testing.T) {
	f := start(t)
	answer := f.post(`<Login xmlns="urn:vim25"><_this type="SessionManager">SessionManager</_this><userName>admin</userName><password>wrong</password></Login>`)
	if !contains(answer, "InvalidLogin") {
		t.Errorf("answer %s", answer)
	}
}
