package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// TestConcurrentChangesEndConsistent lets several sessions change VMs and ports
// at once while others watch, then compares everything that is derived.
func TestConcurrentChangesEndConsistent(t *testing.T) {
	f := start(t)
	pg := f.addPortgroup(types.DVPortgroupConfigSpec{Name: "blue", NumPorts: 4})
	var vms []ref
	for i := range 4 {
		vm := f.createVM(fmt.Sprintf("blue-%d", i), "esx-a", f.onPortgroup(pg))
		f.powerOn(vm)
		vms = append(vms, vm)
	}
	hosts := []ref{f.host("esx-a"), f.host("esx-b")}
	networks := []ref{pg, f.pg("office")}
	w := f.watch(f.esxi("esx-b"), "VirtualMachine", "name")
	w.next(0)

	var running sync.WaitGroup
	for worker := range 4 {
		running.Add(1)
		go func() {
			defer running.Done()
			dice := rand.New(rand.NewPCG(1, uint64(worker)))
			for step := range 15 {
				f.anyChange(dice, vms, hosts, networks, fmt.Sprintf("short-%d-%d", worker, step))
			}
		}()
	}
	running.Wait()
	f.server.v.worker.sync()
	f.checkConsistent(vms)
}

// anyChange makes one change; faults of changes that collide are as good as success.
func (f *fixture) anyChange(dice *rand.Rand, vms, hosts, networks []ref, short string) {
	vm := vms[dice.IntN(len(vms))]
	ctx := f.server.v.newContext()
	wait := func(r ref, err error) {
		if err == nil {
			_, _ = waitTask(ctx, r)
		}
	}
	switch dice.IntN(5) {
	case 0:
		wait(f.migrate(vm, hosts[dice.IntN(len(hosts))]))
	case 1:
		if nic, ok := dvNics(f.devices(vm))[firstNicKey]; ok && nic.port.PortKey != "" {
			wait(f.setPorts(vlanSpec(nic.port.PortKey, int32(1+dice.IntN(4094)))))
		}
	case 2:
		wait(f.edit(vm, firstNicKey, func(c *types.VirtualEthernetCard) {
			c.Backing = f.onPortgroup(networks[dice.IntN(len(networks))])
		}))
	case 3:
		if res, err := methods.PowerOffVM_Task(f.ctx, f.client, &types.PowerOffVM_Task{This: vm}); err == nil {
			wait(res.Returnval, nil)
		}
		if res, err := methods.PowerOnVM_Task(f.ctx, f.client, &types.PowerOnVM_Task{This: vm}); err == nil {
			wait(res.Returnval, nil)
		}
	case 4:
		made := f.createVM(short, "esx-a", f.onPortgroup(networks[0]))
		if res, err := methods.Destroy_Task(f.ctx, f.client, &types.Destroy_Task{This: made}); err == nil {
			wait(res.Returnval, nil)
		}
	}
}

func (f *fixture) checkConsistent(vms []ref) {
	f.t.Helper()
	seen := map[ref]int{}
	for _, p := range f.ports(&types.DistributedVirtualSwitchPortCriteria{Connected: types.NewBool(true)}) {
		seen[*p.Connectee.ConnectedEntity]++
		if slices.Contains(vms, *p.Connectee.ConnectedEntity) && !slices.Contains(f.vmsOf(*p.ProxyHost), *p.Connectee.ConnectedEntity) {
			f.t.Errorf("port %s: proxyHost %s does not list %s", p.Key, p.ProxyHost, p.Connectee.ConnectedEntity)
		}
	}
	shown := map[string]string{}
	for _, name := range []string{"esx-a", "esx-b"} {
		for vm := range f.machines(f.esxi(name)) {
			if shown[vm] != "" {
				f.t.Errorf("%s is on %s and %s", vm, shown[vm], name)
			}
			shown[vm] = name
		}
	}
	for i, vm := range vms {
		if seen[vm] != 1 {
			f.t.Errorf("%s has %d ports", vm, seen[vm])
		}
		nic, _ := f.nic(fmt.Sprintf("blue-%d", i), f.networkOf(vm))
		if shown[fmt.Sprintf("blue-%d", i)] != nic["host"] {
			f.t.Errorf("blue-%d: on %s at the endpoints, on %s in the table", i, shown[fmt.Sprintf("blue-%d", i)], nic["host"])
		}
	}
	if len(seen) != len(vms)+2 {
		f.t.Errorf("%d VMs are connected", len(seen))
	}
}

func (f *fixture) networkOf(vm ref) string {
	f.t.Helper()
	key := dvNics(f.devices(vm))[firstNicKey].port.PortgroupKey
	for _, name := range []string{"blue", "office"} {
		if f.pg(name).Value == key {
			return name
		}
	}
	f.t.Fatalf("unknown portgroup %s", key)
	return ""
}
