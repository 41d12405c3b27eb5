package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func generatedSite(t *testing.T, keys string) (*site, error) {
	t.Helper()
	return parseSite([]byte(strings.Replace(testSite, `"hosts": [`, keys+`, "hosts": [`, 1)))
}

func TestGeneratedHostsAndVmsComeOnTopOfTheListedOnes(t *testing.T) {
	s, err := generatedSite(t, `"generate": {"hosts": 3, "user": "root", "password": "g", "vms": 7, "networks": ["office"], "power": "on"}`)
	if err != nil {
		t.Fatal(err)
	}
	running, err := startServer(s, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.close)
	if got := len(running.ready.ESXi); got != 5 {
		t.Errorf("%d hosts", got)
	}
	perHost := map[string]int{}
	for _, nic := range running.v.nicsAfter(t.Context(), -1).NICs {
		if strings.HasPrefix(nic.VMName, "vm-gen-") && nic.LinkUp {
			perHost[nic.Host]++
		}
	}
	if perHost["esx-gen-1"] != 3 || perHost["esx-gen-2"] != 2 || perHost["esx-gen-3"] != 2 || len(perHost) != 3 {
		t.Errorf("NICs per host %v", perHost)
	}
}

func TestWithoutGeneratedHostsTheListedOnesGetTheVms(t *testing.T) {
	s, err := generatedSite(t, `"generate": {"vms": 4}`)
	if err != nil {
		t.Fatal(err)
	}
	var homes []string
	for _, vm := range s.VMs[1:] {
		homes = append(homes, vm.Host)
	}
	if !slices.Equal(homes, []string{"esx-a", "esx-b", "esx-a", "esx-b"}) {
		t.Errorf("homes %v", homes)
	}
}

func TestPvlansOfTheSiteAreInTheMap(t *testing.T) {
	s, err := generatedSite(t, `"pvlans": [{"primary": 90, "secondary": 90, "type": "promiscuous"}, {"primary": 90, "secondary": 92, "type": "community"}]`)
	if err != nil {
		t.Fatal(err)
	}
	running, err := startServer(s, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.close)
	f := &fixture{t: t, ctx: t.Context(), server: running}
	f.client = f.login(running.ready.VCenter.Address, "admin", "secret")
	if got := f.pvlans(); len(got) != 2 || got[1].SecondaryVlanId != 92 {
		t.Errorf("map %v", got)
	}
}

func TestGeneratorAndPvlanErrorsNameTheKey(t *testing.T) {
	for keys, want := range map[string]string{
		`"generate": {"hosts": -1}`:                                         `generate.hosts: -1; allowed: 0 or more`,
		`"generate": {"hosts": 1}`:                                          `generate.user: missing`,
		`"generate": {"hosts": 1, "user": "root"}`:                          `generate.password: missing`,
		`"generate": {"vms": 1, "networks": ["no"]}`:                        `vms[1].networks[0]: "no"; allowed: VM Network, tf-trunk, office`,
		`"generate": {"vms": -1}`:                                           `generate.vms: -1; allowed: 0 or more`,
		`"generate": {"vm": 1}`:                                             `generate.vm: unknown key`,
		`"pvlans": [{"primary": 9, "secondary": 9, "type": "lonely"}]`:      `pvlans[0].type: "lonely"; allowed: promiscuous, isolated, community`,
		`"pvlans": [{"primary": 9, "secondary": 9, "type": "isolated"}]`:    `pvlans[0]: 9, 9; allowed: ids of 1 to 4094`,
		`"pvlans": [{"primary": 0, "secondary": 0, "type": "promiscuous"}]`: `pvlans[0]: 0, 0; allowed: ids of 1 to 4094`,
	} {
		if _, err := generatedSite(t, keys); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", keys, err, want)
		}
	}
}

func TestLargeSiteIsUpInSeconds(t *testing.T) {
	if testing.Short() {
		t.Skip("2000 VMs")
	}
	s, err := generatedSite(t, `"generate": {"hosts": 62, "user": "root", "password": "g", "vms": 2000, "networks": ["office"], "power": "on"}`)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	running, err := startServer(s, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	t.Cleanup(running.close)
	t.Logf("64 hosts and 2000 VMs after %v", took)
	if took > 2*time.Minute {
		t.Errorf("took %v", took)
	}
}
