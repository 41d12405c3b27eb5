package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSiteErrorsNameTheKeyAndWhatIsAllowed(t *testing.T) {
	for name, c := range map[string]struct{ replace, with, want string }{
		"unknown key":       {`"password": "secret"`, `"password": "secret", "pasword": "x"`, `vcenter.pasword: unknown key; allowed: listen, user, password, instance_uuid`},
		"unknown list key":  {`"ports": 2`, `"port": 2`, `portgroups[1].port: unknown key; allowed: name, vlan, trunk, ports`},
		"wrong type":        {`"vlan": 700`, `"vlan": "700"`, `portgroups.vlan: is a string; allowed: an integer`},
		"VLAN out of range": {`"vlan": 700`, `"vlan": 4095`, `portgroups[1].vlan: 4095; allowed: 0 to 4094`},
		"trunk backwards":   {`[[0, 4094]]`, `[[9, 1]]`, `portgroups[0].trunk[0]: [9 1]; allowed: [first, last] within 0 to 4094`},
		"unknown host":      {`"host": "esx-a", "networks"`, `"host": "esx-z", "networks"`, `vms[0].host: "esx-z"; allowed: esx-a, esx-b`},
		"unknown network":   {`["office"]`, `["kitchen"]`, `vms[0].networks[0]: "kitchen"; allowed: VM Network, tf-trunk, office`},
		"power":             {`"power": "on"`, `"power": "maybe"`, `vms[0].power: "maybe"; allowed: on, off`},
		"no password":       {`"password": "b"`, `"password": ""`, `hosts[1].password: missing; allowed: a password`},
		"same host name":    {`"name": "esx-b"`, `"name": "esx-a"`, `hosts[1].name: "esx-a"; allowed: a name that no other host has, not vcenter, admin or *`},
		"trunk portgroup":   {`"trunk_portgroup": "tf-trunk"`, `"trunk_portgroup": "office"`, `hosts[0].vrouter.trunk_portgroup: "office"; allowed: tf-trunk`},
		"trunk MAC":         {`"00:50:56:00:00:01"`, `"00-50"`, `hosts[0].vrouter.trunk_mac: "00-50"; allowed: a MAC address, like 00:50:56:00:00:01`},
		"smbios uuid":       {`42160000-0000-4000-8000-00000000000a`, `42`, `hosts[0].vrouter.smbios_uuid: "42"; allowed: a uuid, like 42160000-0000-4000-8000-000000000001`},
		"name in two cases": {`"name": "office", "vlan"`, `"name": "TF-trunk", "vlan"`, `portgroups[1].name: "TF-trunk"; allowed: a name that nothing else on the switch has, in any case`},
		"address":           {`"user": "admin"`, `"user": "admin", "listen": "here"`, `vcenter.listen: "here"; allowed: an IP address and a port, like 127.0.0.1:0`},
		"control":           {`"hosts": [`, `"control": "0.0.0.0:1", "hosts": [`, `control: "0.0.0.0:1"; allowed: an address on loopback; the control API has no login`},
		"api version":       {`"hosts": [`, `"api_version": "8.0.2", "hosts": [`, `api_version: "8.0.2"; allowed: four numbers, like 8.0.3.0`},
		"not JSON":          {`{`, ``, `not JSON`},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(testSite, c.replace, c.with, 1)
			if text == testSite {
				t.Fatal("nothing was replaced")
			}
			_, err := parseSite([]byte(text))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func writeSite(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "site.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadUseIsOneLineAndExitCode2(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	inUse := strings.Replace(testSite, `"user": "admin"`, `"user": "admin", "listen": "`+taken.Addr().String()+`"`, 1)
	for name, c := range map[string]struct {
		args []string
		part string
	}{
		"no site":      {nil, "-site: missing"},
		"no such file": {[]string{"-site", "/nowhere/site.json"}, "/nowhere/site.json"},
		"bad site":     {[]string{"-site", writeSite(t, `{}`)}, "vcenter.user: missing"},
		"port in use":  {[]string{"-site", writeSite(t, inUse)}, "vcenter.listen: "},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			if code := run(c.args, strings.NewReader(""), io.Discard, &stderr); code != exitUsage {
				t.Errorf("exit code %d", code)
			}
			if text := stderr.String(); !strings.Contains(text, c.part) || strings.Count(text, "\n") != 1 {
				t.Errorf("stderr %q", text)
			}
		})
	}
}

func TestReadyLineComesFirstAndTheEndOfInputStops(t *testing.T) {
	stdin, closeStdin := io.Pipe()
	stdout, out := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run([]string{"-exit-on-stdin-eof", "-site", writeSite(t, testSite)}, stdin, out, io.Discard)
	}()
	var ready map[string]any
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	if len(ready["esxi"].([]any)) != 2 || ready["pid"] != float64(os.Getpid()) {
		t.Errorf("ready line %v", ready)
	}
	address := ready["vcenter"].(map[string]any)["address"].(string)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("not serving at the ready line: %v", err)
	}
	_ = conn.Close()
	_ = closeStdin.Close()
	select {
	case c := <-code:
		if c != 0 {
			t.Errorf("exit code %d", c)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still running")
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("still listening")
	}
}

func TestEndBeforeTheStartIsOverIsNoHang(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dir, err := os.MkdirTemp("", "vcsim-test-") // not t.TempDir: what was started may still write there
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if _, err := startUntil(ctx, generated(2, 100), dir); err == nil {
		t.Error("started")
	}
}
