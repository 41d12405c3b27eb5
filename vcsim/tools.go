package main

import (
	"fmt"
	"net/http"
	"net/netip"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// What VMware Tools report from inside a guest: guest.net.

// reportedNic is what Tools say about one NIC. DeviceKey 0: they do not know
// which device it is, and name its MAC only.
type reportedNic struct {
	DeviceKey int32             `json:"device_key"`
	MAC       string            `json:"mac"`
	Addresses []reportedAddress `json:"addresses"`
}

type reportedAddress struct {
	Address string `json:"address"`
	Origin  string `json:"origin"`
	State   string `json:"state"`
}

// info is the form that vSphere gives it.
func (n *reportedNic) info() types.GuestNicInfo {
	info := types.GuestNicInfo{
		MacAddress: n.MAC, Connected: true, DeviceConfigId: n.DeviceKey, IpConfig: &types.NetIpConfigInfo{},
	}
	if n.DeviceKey == 0 {
		info.DeviceConfigId = -1
	}
	for _, a := range n.Addresses {
		info.IpAddress = append(info.IpAddress, a.Address)
		prefix, state := int32(24), a.State
		if ip, _ := netip.ParseAddr(a.Address); ip.Is6() {
			prefix = 64
		}
		if state == "" {
			state = string(types.NetIpConfigInfoIpAddressStatusPreferred)
		}
		info.IpConfig.IpAddress = append(info.IpConfig.IpAddress, types.NetIpConfigInfoIpAddress{
			IpAddress: a.Address, PrefixLength: prefix, Origin: a.Origin, State: state,
		})
	}
	return info
}

// reportFromGuest is POST /guest-net.
func (s *server) reportFromGuest(w http.ResponseWriter, r *http.Request) {
	var body struct {
		VM   string        `json:"vm"`
		Nics []reportedNic `json:"nics"`
	}
	if !decode(w, r, &body) {
		return
	}
	for _, n := range body.Nics {
		for _, a := range n.Addresses {
			if _, err := netip.ParseAddr(a.Address); err != nil {
				refuse(w, http.StatusBadRequest, fmt.Sprintf("address %q: allowed is an IP address", a.Address))
				return
			}
		}
	}
	for _, e := range s.v.registry.All("VirtualMachine") {
		if vm := e.(*simulator.VirtualMachine); vm.Name == body.VM {
			s.v.setGuestNet(s.v.newContext(), vm, body.Nics)
			reply(w, struct{}{})
			return
		}
	}
	refuse(w, http.StatusBadRequest, fmt.Sprintf("vm %q: allowed is the name of a VM", body.VM))
}

func (v *vcenter) setGuestNet(ctx *simulator.Context, vm *simulator.VirtualMachine, nics []reportedNic) {
	net := make([]types.GuestNicInfo, 0, len(nics))
	for i := range nics {
		net = append(net, nics[i].info())
	}
	ctx.WithLock(vm, func() {
		if vm.Guest == nil {
			vm.Guest = &types.GuestInfo{}
		}
		ctx.Update(vm, []types.PropertyChange{{Name: "guest.net", Val: net}})
	})
}

// forgetGuestNet empties what Tools reported of a VM that has stopped: nobody is in it to report.
func (v *vcenter) forgetGuestNet(vm ref) {
	v.worker.later(func(ctx *simulator.Context) {
		o := lookup[*simulator.VirtualMachine](v.registry, vm)
		if o != nil && !poweredOn(&o.VirtualMachine) && o.Guest != nil && len(o.Guest.Net) != 0 {
			v.setGuestNet(ctx, o, nil)
		}
	})
}
